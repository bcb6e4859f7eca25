import { RandomStream } from "#lib/core/random";
import {
  applyRepetitionPenalty,
  applyTemperature,
  applyTopK,
  applyTopP,
  argMax,
  drawToken,
} from "./logits.js";
import type { GenerationOptions } from "./options.js";

/** Whether the most probable token is the choice, so that scores need not leave the device. */
export const takesArgMax = (options: GenerationOptions): boolean =>
  !options.doSample && options.repetitionPenalty === 1;

/**
 * Chooses the tokens of one row.
 *
 * @param stream number of the row among those of the seed: a row draws the same numbers whatever
 *   else is in its batch
 */
export class TokenChooser {
  readonly #options: GenerationOptions;
  readonly #random: RandomStream;

  constructor(options: GenerationOptions, stream: number) {
    this.#options = options;
    this.#random = new RandomStream(options.seed, "generation", stream);
  }

  /**
   * @param logits_V changed by the call
   * @param tokens prompt and continuation so far
   */
  choose(logits_V: Float32Array, tokens: Iterable<number>): number {
    const { doSample, temperature, topK, topP, repetitionPenalty } = this.#options;
    applyRepetitionPenalty(logits_V, tokens, repetitionPenalty);
    if (!doSample) return argMax(logits_V);
    // In the order of transformers: each filter sees what the one before left.
    applyTemperature(logits_V, temperature);
    if (topK > 0) applyTopK(logits_V, topK);
    applyTopP(logits_V, topP);
    return drawToken(logits_V, this.#random.nextFloat64());
  }
}
