import type { Target } from "./target.js";

/** Divides a number of inputs among targets by their shares; each gets some. */
export function plan(
  targets: readonly Target[],
  numInputs: number,
): readonly { readonly target: Target; readonly numInputs: number }[] {
  const total = targets.reduce((sum, { share }) => sum + share, 0);
  return targets.map((target) => ({
    target,
    numInputs: Math.max(1, Math.ceil((numInputs * target.share) / total)),
  }));
}
