import { LockstepError } from "#lib/core/errors/index";
import { exactWeight, maxWeight } from "#lib/core/loss-weights";
import type { PlacedExample } from "./examples.js";
import { NumberList } from "./number-list.js";

/** How much examples count in the loss, by their number. Nothing is kept while each counts 1. */
export class ExampleWeights {
  #weights: NumberList<Float64Array> | undefined;
  #hasSpans: NumberList<Int32Array> | undefined;
  #length = 0;

  /** @param hasSpans whether its tokens have weights besides, which stand behind them in the store */
  push(weight: number, hasSpans: boolean): void {
    if (this.#weights === undefined && (weight !== 1 || hasSpans)) {
      this.#weights = NumberList.ofFloat64();
      this.#hasSpans = NumberList.ofInt32();
      for (let i = 0; i < this.#length; i++) {
        this.#weights.push(1);
        this.#hasSpans.push(0);
      }
    }
    this.#length++;
    this.#weights?.push(weight);
    this.#hasSpans?.push(hasSpans ? 1 : 0);
  }

  /** Those of some examples; undefined where every example counts 1. */
  of(examples: Int32Array): SelectedWeights | undefined {
    const [weights, hasSpans] = [this.#weights?.values, this.#hasSpans?.values];
    if (weights === undefined || hasSpans === undefined) return undefined;
    return {
      weights: Float64Array.from(examples, (example) => weights[example] ?? 1),
      hasSpans: Uint8Array.from(examples, (example) => hasSpans[example] ?? 0),
    };
  }
}

export interface SelectedWeights {
  readonly weights: Float64Array;
  readonly hasSpans: Uint8Array;
}

/** Float32 numbers as a store of whole numbers keeps them, and back: the same bits. */
export const asWords = (weights: Float32Array): Int32Array =>
  new Int32Array(weights.buffer, weights.byteOffset, weights.length);
export const asWeights = (words: Int32Array): Float32Array =>
  new Float32Array(words.buffer, words.byteOffset, words.length);

/** @throws E_DATA_ROW_FORMAT where an example's weight times that of one of its messages is none */
export function checkProducts(
  { place, format = "messages", weight = 1 }: PlacedExample,
  weights: Float32Array | undefined,
): void {
  for (const own of new Set(weights)) {
    const product = weight * own;
    if (product === 0 || (product <= maxWeight && exactWeight(product) > 0)) continue;
    const shown = (value: number): string => String(Number(value.toPrecision(4)));
    const problem = `its weight ${shown(weight)} times ${shown(own)}, that of a message, is ${shown(product)}, and weights are multiples of 2^-24 up to ${maxWeight}`;
    throw new LockstepError("E_DATA_ROW_FORMAT", { place, format, problem });
  }
}

/** Answers are compared as wholes. */
export function pairWithWeights({ place, format = "preference" }: PlacedExample): LockstepError {
  const problem = "a message of an answer has a weight, and answers are compared as wholes";
  return new LockstepError("E_DATA_ROW_FORMAT", { place, format, problem });
}
