/**
 * L2 norm of the whole gradient.
 *
 * @param blockSumsOfSquares float64 sums of squares of all blocks of the flat space, in block order:
 *   one after another, so that the bits do not depend on how blocks were shared out
 */
export function totalNorm(blockSumsOfSquares: Iterable<number>): number {
  let sum = 0;
  for (const blockSum of blockSumsOfSquares) sum += blockSum;
  return Math.sqrt(sum);
}

/** As torch.nn.utils.clip_grad_norm_ has it: keeps a zero norm from dividing by zero. */
const normEpsilon = 1e-6;

/** What to multiply the gradient by; `maxNorm` 0 or null leaves it as it is. */
export function clipCoefficient(norm: number, maxNorm: number | null): number {
  if (maxNorm === null || maxNorm === 0) return 1;
  return Math.min(1, maxNorm / (norm + normEpsilon));
}
