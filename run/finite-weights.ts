import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";

/** From here on a number rounds to infinity, to nearest even: half a step above the largest finite one. */
const firstInfinite: Readonly<Record<FloatDtype, number>> = Object.freeze({
  float32: Number.POSITIVE_INFINITY,
  bfloat16: (2 - 2 ** -8) * 2 ** 127,
  float16: 65_520,
});

/**
 * The values of a trained tensor, for who saves them: a run may end with the step that spoiled them, before any
 * gradient tells.
 *
 * @param dtype in which they are saved
 * @param step after which they are what they are
 * @throws E_NON_FINITE_WEIGHTS
 */
export function finiteWeights(
  values: Float32Array,
  {
    tensor,
    dtype,
    step,
  }: { readonly tensor: string; readonly dtype: FloatDtype; readonly step: number },
): Float32Array {
  const limit = firstInfinite[dtype];
  // A NaN is below nothing.
  const wrong = values.find((value) => !(Math.abs(value) < limit));
  if (wrong === undefined) return values;
  throw new LockstepError("E_NON_FINITE_WEIGHTS", { step, tensor, value: wrong, dtype });
}
