// Shape legend: B rows, T tokens, P virtual tokens, M = B * (P + T) or any number of tokens, D model width.
import * as tf from "@tensorflow/tfjs-core";
import type { ParametersJob } from "#lib/core/job";
import { isEncoder } from "#lib/models/facts";
import type { Model, ModelInputs } from "#lib/models/index";
import { type PromptJob, promptWeightName } from "#lib/parameters/prompt-layout";
import type { TracedParameters } from "./index.js";

/**
 * Vectors before those of a row's tokens (prompt tuning, Lester et al. 2021, arXiv 2104.08691), as peft has them:
 * they have the first positions, belong to the row's segment, and give no loss. Their ids follow the vocabulary's.
 */
export function prompt(job: ParametersJob): TracedParameters {
  const { numVirtualTokens, vocabSize } = job as PromptJob;
  const prefix = Int32Array.from({ length: numVirtualTokens }, (_, i) => vocabSize + i);
  return {
    added: [promptWeightName],

    weightsFrom: (found) =>
      Object.assign((name: string) => found(name), {
        embedOf: (tokens_M: tf.Tensor1D, lookUp: (ids_M: tf.Tensor1D) => tf.Tensor): tf.Tensor => {
          const first = tf.scalar(vocabSize, "int32");
          const isVirtual_M1 = tf.expandDims(tf.greaterEqual(tokens_M, first), 1);
          const own_MD = lookUp(tf.minimum(tokens_M, tf.sub(first, tf.scalar(1, "int32"))));
          const places_M = tf.maximum(tf.sub(tokens_M, first), tf.scalar(0, "int32"));
          const virtual_MD = tf.gather(found(promptWeightName), places_M as tf.Tensor1D);
          return tf.where(isVirtual_M1, tf.cast(virtual_MD, "float32"), tf.cast(own_MD, "float32"));
        },
      }),

    modelFrom: (model) => withPrefix(model, prefix),

    checkAllUsed() {},
  };
}

/** Of an encoder hidden states are those of the virtual tokens too: its classifier reads the first of all. */
function withPrefix<M extends Model>(model: M, prefix: Int32Array): M {
  const keepsAll = isEncoder({ model_type: model.modelType });
  const p = prefix.length;
  const changes: Pick<Model, "prefix" | "maxPositions" | "hiddenStates"> = {
    prefix,
    maxPositions: model.maxPositions - p,
    hiddenStates: (weights, inputs) => {
      if (inputs.attention !== undefined) return model.hiddenStates(weights, inputs);
      const hidden_BTD = model.hiddenStates(weights, widened(inputs, prefix));
      if (keepsAll) return hidden_BTD;
      const [b, t] = inputs.tokens.shape;
      return tf.slice(hidden_BTD, [0, p, 0], [b, t, hidden_BTD.shape[2]]);
    },
  };
  return { ...model, ...changes };
}

function widened(inputs: ModelInputs, prefix: Int32Array): ModelInputs {
  const [b] = inputs.tokens.shape;
  const p = prefix.length;
  const before = (x_BP: tf.Tensor, x_BT: tf.Tensor): tf.Tensor2D =>
    tf.concat([x_BP, x_BT], 1) as tf.Tensor2D;
  const constant = (values: ArrayLike<number>): tf.Tensor =>
    tf.tensor2d(Array.from({ length: b }, () => Array.from(values)).flat(), [b, p], "int32");
  const places = Int32Array.from(prefix, (_, i) => i);
  const { tokens, segments, positions, tokenTypes, sequenceLength } = inputs;
  return {
    ...inputs,
    tokens: before(constant(prefix), tokens),
    ...(segments === undefined
      ? {}
      : { segments: before(tf.tile(tf.slice(segments, [0, 0], [b, 1]), [1, p]), segments) }),
    ...(positions === undefined
      ? {}
      : { positions: before(constant(places), tf.add(positions, tf.scalar(p, "int32"))) }),
    ...(tokenTypes === undefined
      ? {}
      : { tokenTypes: before(constant(new Int32Array(p)), tokenTypes) }),
    ...(sequenceLength === undefined ? {} : { sequenceLength: sequenceLength + p }),
  };
}
