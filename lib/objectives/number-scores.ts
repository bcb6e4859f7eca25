/**
 * How near a regression comes to its rows' numbers. Pairs are brought into the order of their values before
 * anything is added, so that the order of rows and batches changes no bit.
 */
export class NumberScores {
  /** Of each output, its targets and what the model says, by row. */
  readonly #pairs: readonly { readonly targets: number[]; readonly predictions: number[] }[];

  constructor(numOutputs: number) {
    this.#pairs = Array.from({ length: numOutputs }, () => ({ targets: [], predictions: [] }));
  }

  /**
   * @param counted [rows], below 0 where a row does not count
   * @param targets [rows, outputs]
   * @param predictions [rows, outputs]
   */
  add(
    counted: ArrayLike<number>,
    targets: ArrayLike<number>,
    predictions: ArrayLike<number>,
  ): void {
    const numOutputs = this.#pairs.length;
    for (let row = 0; row < counted.length; row++) {
      if ((counted[row] ?? -1) < 0) continue;
      for (const [output, pairs] of this.#pairs.entries()) {
        pairs.targets.push(targets[row * numOutputs + output] ?? Number.NaN);
        pairs.predictions.push(predictions[row * numOutputs + output] ?? Number.NaN);
      }
    }
  }

  /**
   * Root mean squared and mean absolute error over rows and outputs, and Pearson's and Spearman's
   * correlation, their mean over the outputs; all NaN where the model says a number that is not finite.
   */
  values(): Readonly<Record<"rmse" | "mae" | "pearson" | "spearmanr", number>> {
    let [count, squares, absolutes, pearson, spearmanr] = [0, 0, 0, 0, 0];
    for (const { targets, predictions } of this.#pairs) {
      if (!predictions.every(Number.isFinite)) {
        return { rmse: Number.NaN, mae: Number.NaN, pearson: Number.NaN, spearmanr: Number.NaN };
      }
      const order = orderOf(targets, predictions);
      const [xs, ys] = [targets, predictions].map((values) =>
        order.map((row) => values[row] as number),
      ) as [number[], number[]];
      for (const [i, x] of xs.entries()) {
        const error = (ys[i] as number) - x;
        squares += error * error;
        absolutes += Math.abs(error);
      }
      count += xs.length;
      pearson += correlation(xs, ys) / this.#pairs.length;
      spearmanr += correlation(averageRanks(xs), averageRanks(ys)) / this.#pairs.length;
    }
    return { rmse: Math.sqrt(squares / count), mae: absolutes / count, pearson, spearmanr };
  }
}

/** Rows by their target, then by what the model says: rows that are equal in both are the same to every sum. */
function orderOf(targets: readonly number[], predictions: readonly number[]): number[] {
  const difference = (values: readonly number[], a: number, b: number): number =>
    (values[a] as number) - (values[b] as number);
  return [...targets.keys()].sort(
    (a, b) => difference(targets, a, b) || difference(predictions, a, b),
  );
}

/**
 * Pearson's coefficient, as `scipy.stats.pearsonr`; 0 where either does not vary, for which it is not
 * defined.
 */
function correlation(xs: readonly number[], ys: readonly number[]): number {
  const [meanX, meanY] = [mean(xs), mean(ys)];
  let [xx, xy, yy] = [0, 0, 0];
  for (const [i, x] of xs.entries()) {
    const [dx, dy] = [x - meanX, (ys[i] as number) - meanY];
    xx += dx * dx;
    xy += dx * dy;
    yy += dy * dy;
  }
  if (isConstant(xs) || isConstant(ys)) return 0;
  return Math.max(-1, Math.min(1, xy / Math.sqrt(xx * yy)));
}

const isConstant = (values: readonly number[]): boolean =>
  values.every((value) => value === values[0]);

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Ranks from 1; equal values have the mean of their places, as in `scipy.stats.rankdata`. */
function averageRanks(values: readonly number[]): number[] {
  const order = [...values.keys()].sort((a, b) => (values[a] as number) - (values[b] as number));
  const ranks = Array.from(values, () => 0);
  let start = 0;
  while (start < order.length) {
    let end = start + 1;
    while (end < order.length && values[order[end] as number] === values[order[start] as number]) {
      end++;
    }
    for (const row of order.slice(start, end)) ranks[row] = (start + 1 + end) / 2;
    start = end;
  }
  return ranks;
}
