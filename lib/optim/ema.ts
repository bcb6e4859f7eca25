/** Name of the array of the masters' average, beside those that the optimizer keeps. */
export const emaSlot = "ema";

/**
 * What a new value of the masters weighs in their exponential moving average, as in
 * torch.optim.swa_utils.get_ema_multi_avg_fn: the average begins with the masters of the first update, and moves
 * by 1 - `decay` of its distance to each that follows.
 *
 * @param updateNumber 1 for the first update of the run
 */
export const emaWeight = (decay: number, updateNumber: number): number =>
  updateNumber === 1 ? 1 : 1 - decay;
