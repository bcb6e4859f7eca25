/** Field names are those of torch.amp.GradScaler's state dict, as checkpoints hold them. */
interface LossScalerState {
  readonly scale: number;
  readonly growth_factor: number;
  readonly backoff_factor: number;
  readonly growth_interval: number;
  readonly _growth_tracker: number;
}

/** Defaults of torch.amp.GradScaler. */
const defaultLossScalerState: LossScalerState = Object.freeze({
  scale: 65_536,
  growth_factor: 2,
  backoff_factor: 0.5,
  growth_interval: 2_000,
  _growth_tracker: 0,
});

/** Largest float32: torch keeps the scale in float32 and does not let it grow into infinity. */
const maxFloat32 = (2 - 2 ** -23) * 2 ** 127;

/** Dynamic loss scale for float16 gradients, with the semantics of torch.amp.GradScaler. */
export class LossScaler {
  #state: LossScalerState;

  constructor(state: Partial<LossScalerState> = {}) {
    this.#state = Object.freeze({ ...defaultLossScalerState, ...state });
  }

  get scale(): number {
    return this.#state.scale;
  }

  /** What a run saves; `new LossScaler(state)` goes on from it. */
  get state(): LossScalerState {
    return this.#state;
  }

  /**
   * To be called once a step, after the decision to apply it.
   *
   * @param foundNonFinite whether the summed gradient had an infinity or NaN; then the optimizer is
   *   skipped and the scale shrinks
   */
  update(foundNonFinite: boolean): void {
    const state = this.#state;
    if (foundNonFinite) {
      this.#state = Object.freeze({
        ...state,
        scale: Math.fround(state.scale * state.backoff_factor),
        _growth_tracker: 0,
      });
      return;
    }
    const tracker = state._growth_tracker + 1;
    if (tracker < state.growth_interval) {
      this.#state = Object.freeze({ ...state, _growth_tracker: tracker });
      return;
    }
    const grown = Math.fround(state.scale * state.growth_factor);
    this.#state = Object.freeze({
      ...state,
      scale: grown <= maxFloat32 ? grown : state.scale,
      _growth_tracker: 0,
    });
  }
}
