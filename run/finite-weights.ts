import { LockstepError } from "#lib/core/errors/index";

/**
 * The values of a trained tensor, for who saves them: a run may end with the step that spoiled them, before any
 * gradient tells.
 *
 * @param step after which they are what they are
 * @throws E_NON_FINITE_WEIGHTS
 */
export function finiteWeights(values: Float32Array, tensor: string, step: number): Float32Array {
  const wrong = values.find((value) => !Number.isFinite(value));
  if (wrong === undefined) return values;
  throw new LockstepError("E_NON_FINITE_WEIGHTS", { step, tensor, value: wrong });
}
