import * as tf from "@tensorflow/tfjs-core";
import { TextBatches, type TextBatchOptions, type TextTokens } from "#lib/evaluation/text-batches";
import type { SequenceClassifier } from "#lib/models/index";

export type { ClassScore } from "./class-score.js";
export { classScores } from "./scores.js";

/** Padding is the model's own: decoders find the last token by it. */
type TextClassifierOptions = Omit<TextBatchOptions<SequenceClassifier>, "paddingTokenId">;

/** Scores of texts in a model's classes, in one session of its own. */
export class TextClassifier {
  readonly #batches: TextBatches;

  private constructor(batches: TextBatches) {
    this.#batches = batches;
  }

  /** @throws E_SEQUENCE_TOO_LONG where the model has fewer positions than maxLength */
  static async create(options: TextClassifierOptions): Promise<TextClassifier> {
    const { model } = options;
    const paddingTokenId = model.padTokenId ?? 0;
    const batches = await TextBatches.create(
      { ...options, paddingTokenId },
      (weights, inputs, hidden) => tf.cast(model.logits(weights, inputs, hidden), "float32"),
    );
    return new TextClassifier(batches);
  }

  /**
   * @param texts tokens of each text, from 1 to maxLength of them
   * @returns the logits of the classes, by number, a text
   * @throws E_SEQUENCE_TOO_LONG
   */
  logits(texts: readonly TextTokens[]): Float32Array[] {
    return this.#batches.run(texts);
  }

  close(): void {
    this.#batches.close();
  }
}
