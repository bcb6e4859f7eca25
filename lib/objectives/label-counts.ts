/** How many labels a classifier of several labels got right, by class: whole numbers. */
export class LabelCounts {
  readonly #right: Float64Array;
  readonly #targets: Float64Array;
  readonly #predictions: Float64Array;
  #numRows = 0;
  #numExact = 0;

  constructor(numLabels: number) {
    this.#right = new Float64Array(numLabels);
    this.#targets = new Float64Array(numLabels);
    this.#predictions = new Float64Array(numLabels);
  }

  /**
   * @param targets [rows, labels], 0 or 1; a row of targets below 0 does not count
   * @param predictions [rows, labels], 0 or 1
   */
  add(targets: ArrayLike<number>, predictions: ArrayLike<number>): void {
    const width = this.#right.length;
    for (let start = 0; start < targets.length; start += width) {
      if ((targets[start] ?? -1) < 0) continue;
      let isExact = true;
      for (let label = 0; label < width; label++) {
        const [target = 0, predicted = 0] = [targets[start + label], predictions[start + label]];
        this.#targets[label] = (this.#targets[label] ?? 0) + target;
        this.#predictions[label] = (this.#predictions[label] ?? 0) + predicted;
        this.#right[label] = (this.#right[label] ?? 0) + target * predicted;
        isExact &&= target === predicted;
      }
      this.#numRows += 1;
      if (isExact) this.#numExact += 1;
    }
  }

  /** F1 of all labels of all rows together, as scikit-learn's `f1_score(average="micro")`. */
  microF1(): number {
    const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
    return f1(sum(this.#right), sum(this.#targets) + sum(this.#predictions));
  }

  /** Mean of the classes' F1, as `f1_score(average="macro", zero_division=0)`: 0 for one without any. */
  macroF1(): number {
    const { length } = this.#right;
    return this.#right.reduce((total, right, label) => {
      const either = (this.#targets[label] ?? 0) + (this.#predictions[label] ?? 0);
      return total + f1(right, either) / length;
    }, 0);
  }

  /** Share of rows whose labels are all right and no other, as `accuracy_score` of such rows. */
  exactMatch(): number {
    return this.#numExact / this.#numRows;
  }
}

/** @param either targets and predictions together */
const f1 = (right: number, either: number): number => (either === 0 ? 0 : (2 * right) / either);
