type Numbers = Float64Array | Int32Array;

/** A growing list of numbers without the boxes of a JavaScript array. */
export class NumberList<A extends Numbers = Numbers> {
  readonly #allocate: (length: number) => A;
  #values: A;
  length = 0;

  private constructor(allocate: (length: number) => A) {
    this.#allocate = allocate;
    this.#values = allocate(1024);
  }

  static ofFloat64(): NumberList<Float64Array> {
    return new NumberList((length) => new Float64Array(length));
  }

  static ofInt32(): NumberList<Int32Array> {
    return new NumberList((length) => new Int32Array(length));
  }

  push(value: number): void {
    if (this.length === this.#values.length) {
      const grown = this.#allocate(2 * this.length);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.length++] = value;
  }

  /** A view that is valid until the next push. */
  get values(): A {
    return this.#values.subarray(0, this.length) as A;
  }
}
