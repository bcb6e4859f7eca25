/** Numbers without the boxes of a JavaScript array, which double the memory of a long one. */
export class NumberList {
  #values = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#values.length) {
      const grown = new Float64Array(2 * this.length);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.length++] = value;
  }

  /** A view that is valid until the next push. */
  get values(): Float64Array {
    return this.#values.subarray(0, this.length);
  }
}
