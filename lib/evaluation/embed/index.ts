// Shape legend: B rows of a call, T tokens, D model width.
import * as tf from "@tensorflow/tfjs-core";
import { TextBatches, type TextBatchOptions } from "#lib/evaluation/text-batches";
import type { Model } from "#lib/models/index";
import type { Pooling } from "./pooling.js";

interface TextEmbedderOptions extends TextBatchOptions<Model> {
  /** @default "mean" */
  readonly pooling?: Pooling;
  /** Scales vectors to length 1. @default true */
  readonly normalize?: boolean;
}

/** Below every norm and token count that occurs, as torch's `normalize` and sentence-transformers have it. */
const leastNorm = 1e-12;

/** Vectors of texts from a model's last hidden states, in one session of its own. */
export class TextEmbedder {
  readonly #batches: TextBatches;

  private constructor(batches: TextBatches) {
    this.#batches = batches;
  }

  /** @throws E_SEQUENCE_TOO_LONG where the model has fewer positions than maxLength */
  static async create(options: TextEmbedderOptions): Promise<TextEmbedder> {
    const { pooling = "mean", normalize = true } = options;
    const batches = await TextBatches.create(options, (_, inputs, hidden_BTD) => {
      const wide_BTD = tf.cast(hidden_BTD, "float32");
      const pooled_BD =
        pooling === "mean" ? meanOver(wide_BTD, inputs.segments) : firstOf(wide_BTD);
      return normalize ? toUnitLength(pooled_BD) : pooled_BD;
    });
    return new TextEmbedder(batches);
  }

  /**
   * @param texts token ids of each text with its special tokens, from 1 to maxLength of them
   * @returns a vector of D numbers a text
   * @throws E_SEQUENCE_TOO_LONG
   */
  embed(texts: readonly Int32Array[]): Float32Array[] {
    return this.#batches.run(texts);
  }

  close(): void {
    this.#batches.close();
  }
}

/** The mean over real tokens. */
function meanOver(hidden_BTD: tf.Tensor3D, segments_BT: tf.Tensor2D): tf.Tensor {
  const isReal_BT1 = tf.expandDims(tf.cast(segments_BT, "float32"), 2);
  const count_B1 = tf.maximum(tf.sum(isReal_BT1, 1), tf.scalar(leastNorm));
  return tf.div(tf.sum(tf.mul(hidden_BTD, isReal_BT1), 1), count_B1);
}

function firstOf(hidden_BTD: tf.Tensor3D): tf.Tensor {
  const [b, , d] = hidden_BTD.shape;
  return tf.reshape(tf.slice(hidden_BTD, [0, 0, 0], [b, 1, d]), [b, d]);
}

function toUnitLength(x_BD: tf.Tensor): tf.Tensor {
  const norm_B1 = tf.sqrt(tf.sum(tf.square(x_BD), -1, true));
  return tf.div(x_BD, tf.maximum(norm_B1, tf.scalar(leastNorm)));
}
