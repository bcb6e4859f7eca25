// Shape legend: B rows, M positions, D model width.
import * as tf from "@tensorflow/tfjs-core";
import type { DropoutJob } from "#lib/core/dropout";
import type { GraphTensor } from "#lib/graph/builder";
import { symbolicTensor } from "#lib/graph/tracing-backend";
import type { Dropout } from "#lib/models/index";
import { addNoise } from "#lib/ops/index";

/** What a pass draws by. */
interface PassInputs {
  /** int32 [3]: step, gradient group and micro-batch that are computed. */
  readonly coordinates: GraphTensor | undefined;
  /** int32 [B, 1], tokens of each row, of a pair [B, 2]; only noise asks for them. */
  readonly lengths: GraphTensor | undefined;
}

/**
 * What one traced forward pass drops and adds; places are numbered as the model asks for them.
 *
 * @returns undefined where the job drops nothing and has no noise
 */
export function passDropout(
  job: DropoutJob | undefined,
  { coordinates, lengths }: PassInputs,
): Dropout | undefined {
  if (job === undefined || coordinates === undefined) return undefined;
  const { seed, rates, noiseAlpha } = job;
  const fed = symbolicTensor(coordinates);
  let numSites = 0;
  return {
    sourceOf(kind) {
      const rate = rates[kind] ?? 0;
      return rate === 0 ? undefined : { rate, coordinates: fed, seed, site: numSites++ };
    },
    ...(noiseAlpha === undefined || lengths === undefined
      ? {}
      : {
          withNoise: (vectors_MD: tf.Tensor) =>
            addNoise(vectors_MD, noiseMagnitude(noiseAlpha, symbolicTensor(lengths), vectors_MD), {
              ...{ coordinates: fed, seed, site: numSites++ },
            }),
        }),
  };
}

/**
 * alpha / sqrt(L D), where L is what transformers' collator would pad the micro-batch to: the tokens of its longest
 * row.
 */
function noiseMagnitude(alpha: number, lengths_B1: tf.Tensor, vectors_MD: tf.Tensor): tf.Tensor {
  const width = tf.scalar(vectors_MD.shape.at(-1) ?? 1);
  // Of padding rows alone nothing is learnt; their noise is still a number.
  const longest = tf.maximum(tf.max(tf.cast(lengths_B1, "float32")), tf.scalar(1));
  return tf.div(tf.scalar(alpha), tf.sqrt(tf.mul(longest, width)));
}
