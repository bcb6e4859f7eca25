// Shape legend: B rows of a call, T tokens, Q tokens of a part, N query heads, K key/value heads, H head
// width, D model width, W numbers of a text.
import * as tf from "@tensorflow/tfjs-core";
import { cpuCount } from "#lib/core/cpu-count";
import { PartedAttention, type TokenRange } from "#lib/graph/parted-attention";
import { graphTensor, symbolicTensor, type Tracer } from "#lib/graph/tracing-backend";
import type { Model, ModelInputs, Weights } from "#lib/models/index";

/** Inputs in which padding is a segment of its own, and places are given. */
export type TextInputs = ModelInputs & {
  readonly segments: tf.Tensor2D;
  readonly positions: tf.Tensor2D;
};

/** What is made of hidden states [B, T, D]: float [B, W]. */
export type OfHiddenStates = (
  weights: Weights,
  inputs: TextInputs,
  hidden_BTD: tf.Tensor3D,
) => tf.Tensor;

/** More were not measured. */
const mostParts = 2;

/**
 * Parts that TensorFlow computes at the same time: as many as it runs nodes of a graph side by side.
 * Products of a short text are too short to share between threads, and compiled functions run on one.
 */
export function partsSideBySide(env: Readonly<Record<string, string | undefined>>): number {
  const given = Number(env["TF_NUM_INTEROP_THREADS"] ?? 0);
  return Math.min(mostParts, given > 0 ? given : cpuCount());
}

/**
 * Threads of TensorFlow for a process that does nothing but read texts: one for each part, and the rest
 * within its products. To be called before the engine is loaded.
 */
export function setTextThreads(numThreads: number): void {
  const numParts = Math.min(mostParts, numThreads);
  process.env["TF_NUM_INTEROP_THREADS"] = String(numParts);
  process.env["TF_NUM_INTRAOP_THREADS"] = String(Math.ceil(numThreads / numParts));
}

/**
 * The forward pass in parts that need as little of each other as can be: rows apart, or where there are
 * fewer rows than parts, neighbouring tokens, which meet in the keys and values of each layer.
 */
export function sideBySide(
  tracer: Tracer,
  model: Model,
  weights: Weights,
  numParts: number,
  compute: OfHiddenStates,
): (inputs: TextInputs) => tf.Tensor {
  const whole = (inputs: TextInputs): tf.Tensor =>
    compute(weights, inputs, model.hiddenStates(weights, inputs));
  if (numParts === 1) return whole;
  return (inputs) => {
    const [b, t] = inputs.tokens.shape;
    if (model.prefix !== undefined) return whole(inputs);
    if (b >= numParts) {
      const rows = rangesOf(b, numParts).map(({ start, length }) =>
        whole(inputsAt(inputs, [start, 0], [length, t])),
      );
      return tf.concat(rows, 0);
    }
    const hidden_BTD = hiddenStatesByTokens(tracer, model, weights, rangesOf(t, numParts), inputs);
    return compute(weights, inputs, hidden_BTD);
  };
}

/** `count` things in at most `numParts` ranges as long as each other, but for the last. */
function rangesOf(count: number, numParts: number): readonly TokenRange[] {
  const size = Math.ceil(count / numParts);
  return Array.from({ length: Math.ceil(count / size) }, (_, index) => ({
    start: index * size,
    length: Math.min(size, count - index * size),
  }));
}

function inputsAt(
  inputs: TextInputs,
  begin: [row: number, token: number],
  size: [rows: number, tokens: number],
): TextInputs {
  const cut = (x: tf.Tensor2D): tf.Tensor2D => tf.slice(x, begin, size);
  const { tokens, segments, positions, tokenTypes } = inputs;
  return {
    ...inputs,
    ...{ tokens: cut(tokens), segments: cut(segments), positions: cut(positions) },
    ...(tokenTypes === undefined ? {} : { tokenTypes: cut(tokenTypes) }),
  };
}

function hiddenStatesByTokens(
  tracer: Tracer,
  model: Model,
  weights: Weights,
  parts: readonly TokenRange[],
  inputs: TextInputs,
): tf.Tensor3D {
  const [b, t] = inputs.tokens.shape;
  const attention = new PartedAttention(tracer, parts, graphTensor(inputs.segments));
  const hidden = parts.map(({ start, length }, part) =>
    model.hiddenStates(weights, {
      ...inputsAt(inputs, [0, start], [b, length]),
      sequenceLength: t,
      attention: (layer, q_BQNH, k_BQKH, v_BQKH, options) => {
        const qkv = [graphTensor(q_BQNH), graphTensor(k_BQKH), graphTensor(v_BQKH)] as const;
        return symbolicTensor(attention.attend(part, layer, qkv, options));
      },
    }),
  );
  return tf.concat(hidden, 1);
}
