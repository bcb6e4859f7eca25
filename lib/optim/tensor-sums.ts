/** Sums of a tensor over some of its parts: float64, for its numbers `at` and after. */
export interface SumWindow {
  /** Index in the layout's tensors. */
  readonly tensor: number;
  readonly at: number;
  readonly sums: Float64Array;
}

/**
 * Takes the sums of a stretch of blocks in block order. A tensor that begins in the stretch is added up here; of one
 * that goes on from before, every addition is kept, because the sum before it is not known. So whoever adds all
 * windows of all stretches in order does every addition in block order, and gets the same bits however the space is cut.
 */
export class TensorSums {
  readonly #totals = new Map<number, Float64Array>();
  readonly #windows: SumWindow[] = [];

  /** @param numSums of the tensor, where it begins in the stretch; undefined where it goes on from before */
  add(tensor: number, numSums: number | undefined, at: number, sums: ArrayLike<number>): void {
    if (numSums === undefined) {
      this.#windows.push({ tensor, at, sums: new Float64Array(sums) });
      return;
    }
    let total = this.#totals.get(tensor);
    if (total === undefined) {
      total = new Float64Array(numSums);
      this.#totals.set(tensor, total);
    }
    addInto(total, at, sums);
  }

  /** In order for each tensor. */
  windows(): readonly SumWindow[] {
    const totals = [...this.#totals].map(([tensor, sums]) => ({ tensor, at: 0, sums }));
    return [...this.#windows, ...totals];
  }
}

/** total[at + i] += sums[i] */
export function addInto(total: Float64Array, at: number, sums: ArrayLike<number>): void {
  for (let i = 0; i < sums.length; i++) {
    total[at + i] = (total[at + i] as number) + (sums[i] as number);
  }
}
