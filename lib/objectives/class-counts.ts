/** How many rows a classifier got right, by class: whole numbers, so no order of batches changes a score. */
export class ClassCounts {
  readonly #right: Float64Array;
  readonly #targets: Float64Array;
  readonly #predictions: Float64Array;

  constructor(numClasses: number) {
    this.#right = new Float64Array(numClasses);
    this.#targets = new Float64Array(numClasses);
    this.#predictions = new Float64Array(numClasses);
  }

  /**
   * @param targets classes by number; a row whose target is below 0 does not count
   * @param predictions classes by number, of as many rows
   */
  add(targets: ArrayLike<number>, predictions: ArrayLike<number>): void {
    for (let row = 0; row < targets.length; row++) {
      const [target = -1, predicted] = [targets[row], predictions[row]];
      if (target < 0 || predicted === undefined) continue;
      this.#targets[target] = (this.#targets[target] ?? 0) + 1;
      this.#predictions[predicted] = (this.#predictions[predicted] ?? 0) + 1;
      if (target === predicted) this.#right[target] = (this.#right[target] ?? 0) + 1;
    }
  }

  /** Share of rows whose class is predicted, 0 to 1. */
  accuracy(): number {
    return sum(this.#right) / sum(this.#targets);
  }

  /**
   * Mean of the classes' F1 scores, 0 to 1, over the classes that occur among targets or predictions, as
   * scikit-learn's `f1_score(average="macro", zero_division=0)` has it.
   */
  macroF1(): number {
    let [numPresent, sumOfF1] = [0, 0];
    for (const [label, right] of this.#right.entries()) {
      const either = (this.#targets[label] ?? 0) + (this.#predictions[label] ?? 0);
      if (either === 0) continue;
      numPresent += 1;
      sumOfF1 += (2 * right) / either;
    }
    return sumOfF1 / numPresent;
  }
}

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
