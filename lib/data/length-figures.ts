export interface LengthFigures {
  readonly shortest: number;
  readonly longest: number;
  readonly mean: number;
  /** Of the examples, so many per cent are no longer. */
  readonly percentiles: ReadonlyMap<number, number>;
  /** Examples of at most so many tokens, more than the bound before it. */
  readonly histogram: readonly { readonly upTo: number; readonly count: number }[];
}

const percentiles = [50, 90, 95, 99];

/** How long examples are, tokens; undefined without one. Percentiles are nearest ranks. */
export function lengthFigures(lengths: Int32Array): LengthFigures | undefined {
  if (lengths.length === 0) return undefined;
  const sorted = lengths.slice().sort();
  const rank = (percent: number): number =>
    sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? 0;
  const [shortest, longest] = [sorted[0] ?? 0, sorted.at(-1) ?? 0];
  const histogram: { upTo: number; count: number }[] = [];
  let upTo = 2 ** Math.ceil(Math.log2(Math.max(1, shortest)));
  let counted = 0;
  for (; counted < sorted.length; upTo *= 2) {
    let count = 0;
    while (counted < sorted.length && (sorted[counted] ?? 0) <= upTo) {
      count++;
      counted++;
    }
    histogram.push({ upTo, count });
  }
  return {
    shortest,
    longest,
    mean: sorted.reduce((sum, length) => sum + length, 0) / sorted.length,
    percentiles: new Map(percentiles.map((percent) => [percent, rank(percent)])),
    histogram,
  };
}
