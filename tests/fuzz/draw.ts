import { crc32 } from "node:zlib";
import { RandomStream } from "#lib/core/random";

/** Seeded choices of one input; they depend on the seed, the target and the input's number alone. */
export class Draw {
  readonly #stream: RandomStream;

  constructor(seed: number, target: string, input: number) {
    this.#stream = new RandomStream(seed, "test", crc32(`${target}/${input}`));
  }

  /** An integer in [0, bound); 0 where the bound is 0. */
  below(bound: number): number {
    return bound < 1 ? 0 : this.#stream.nextBelow(bound);
  }

  /** An integer in [low, high]. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  uint32(): number {
    return this.#stream.nextUint32();
  }

  /** Whether something happens that does so once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  /** @throws RangeError where there is nothing to choose from */
  pick<T>(choices: readonly T[]): T {
    if (choices.length === 0) throw new RangeError("nothing to choose from");
    return choices[this.below(choices.length)] as T;
  }
}
