import { NumberList } from "./number-list.js";

const lineBehind = /^(.*\D)(\d+)$/s;

/**
 * Places of examples (a file's name and a line, for most) in 12 bytes each: the text before the number is
 * kept once. A list of strings takes some hundred.
 */
export class PlaceList {
  readonly #heads: string[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #headOf = NumberList.ofInt32();
  /** -1 for a place that ends in no number. */
  readonly #lineOf = NumberList.ofFloat64();

  get length(): number {
    return this.#headOf.length;
  }

  push(place: string): void {
    const found = lineBehind.exec(place);
    const [, head = place, line] = found ?? [];
    // A number that is written in another way is part of the name: file:007.
    const isLine = line !== undefined && String(Number(line)) === line;
    const kept = isLine ? head : place;
    let number = this.#numbers.get(kept);
    if (number === undefined) {
      number = this.#heads.length;
      this.#numbers.set(kept, number);
      this.#heads.push(kept);
    }
    this.#headOf.push(number);
    this.#lineOf.push(isLine ? Number(line) : -1);
  }

  at(index: number): string {
    const line = this.#lineOf.values[index] ?? -1;
    return `${this.#heads[this.#headOf.values[index] ?? 0] ?? ""}${line < 0 ? "" : line}`;
  }
}
