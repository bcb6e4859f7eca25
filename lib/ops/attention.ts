// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width.
import * as tf from "@tensorflow/tfjs-core";
import { attentionBlocks, firstMaskGroups, type Visibility } from "./attention-blocks.js";
import { dropoutAttrs, dropoutFactors, type DropoutSource } from "./dropout.js";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const Attention = "Attention";
export const AttentionGrad = "AttentionGrad";
/** The same kernels with segments as a further input. */
export const SegmentAttention = "SegmentAttention";
export const SegmentAttentionGrad = "SegmentAttentionGrad";
/** Both with dropout of the probabilities: its coordinates are an input, its attributes are added. */
export const DropoutAttention = "DropoutAttention";
export const DropoutAttentionGrad = "DropoutAttentionGrad";
export const DropoutSegmentAttention = "DropoutSegmentAttention";
export const DropoutSegmentAttentionGrad = "DropoutSegmentAttentionGrad";

export interface AttentionOptions {
  /** Factor of the scores, usually 1/sqrt(H). */
  readonly scale: number;
  /** Whether a query sees only keys up to its own position. */
  readonly causal: boolean;
  /** A query at i sees keys with |i - j| < window; absent or null: all. */
  readonly window?: number | null;
  /** Scores become softcap * tanh(score / softcap) before masks (Gemma 2); absent or null: as they are. */
  readonly softcap?: number | null;
}

/** The options as kernel attributes; 0 stands for "none". */
export interface AttentionAttrs extends tf.NamedAttrMap, Visibility {
  readonly scale: number;
  readonly softcap: number;
}

export const attentionAttrs = (options: AttentionOptions): AttentionAttrs => ({
  scale: options.scale,
  causal: options.causal,
  window: options.window ?? 0,
  softcap: options.softcap ?? 0,
});

/** Added to the score of a key that a query may not see: softmax turns it to exactly 0. */
export const hiddenScore = -1e30;

/** Whether a query at one position may see a key at another, segments aside. */
function isVisible({ causal, window }: Visibility, query: number, key: number): boolean {
  if (causal && key > query) return false;
  return window === 0 || Math.abs(query - key) < window;
}

/**
 * Grouped-query attention: softmax(scale * q k^T + mask) v.
 *
 * @param q_BTNH float, already rotated
 * @param k_BTKH float, K divides N; each key head serves N/K neighbouring query heads
 * @param v_BTKH float
 * @param segments_BT int32; a query sees keys of its own segment only (packed rows, padding)
 * @param dropout of the probabilities behind their softmax, as torch does it
 * @returns float [B, T, N, H]
 */
export function attention(
  q_BTNH: tf.Tensor,
  k_BTKH: tf.Tensor,
  v_BTKH: tf.Tensor,
  options: AttentionOptions,
  segments_BT?: tf.Tensor,
  dropout?: DropoutSource,
): tf.Tensor {
  const attrs = attentionAttrs(options);
  if (!hasKernel(Attention)) {
    return attentionPrimitive(q_BTNH, k_BTKH, v_BTKH, attrs, segments_BT, dropout);
  }
  const inputs = {
    ...{ q: q_BTNH, k: k_BTKH, v: v_BTKH },
    ...(segments_BT === undefined ? {} : { segments: segments_BT }),
  };
  if (dropout === undefined) {
    return runFused(segments_BT === undefined ? Attention : SegmentAttention, inputs, attrs);
  }
  const { coordinates } = dropout;
  return runFused(
    segments_BT === undefined ? DropoutAttention : DropoutSegmentAttention,
    { ...inputs, coordinates },
    { ...attrs, ...dropoutAttrs(dropout) },
  );
}

/** The same out of elementary ops, with the whole score matrix: the oracle of the fused form. */
export function attentionPrimitive(
  q_BTNH: tf.Tensor,
  k_BTKH: tf.Tensor,
  v_BTKH: tf.Tensor,
  attrs: AttentionAttrs,
  segments_BT?: tf.Tensor,
  dropout?: DropoutSource,
): tf.Tensor {
  const [b, t, n, h] = q_BTNH.shape as [number, number, number, number];
  const k = k_BTKH.shape[2] as number;
  const q_BKGTH = tf.reshape(tf.transpose(q_BTNH, [0, 2, 1, 3]), [b * k, (n / k) * t, h]);
  const k_BKTH = tf.reshape(tf.transpose(k_BTKH, [0, 2, 1, 3]), [b * k, t, h]);
  const v_BKTH = tf.reshape(tf.transpose(v_BTKH, [0, 2, 1, 3]), [b * k, t, h]);
  let scores = tf.mul(tf.matMul(q_BKGTH, k_BKTH, false, true), tf.scalar(attrs.scale));
  if (attrs.softcap > 0) {
    const softcap = tf.scalar(attrs.softcap);
    scores = tf.mul(tf.tanh(tf.div(scores, softcap)), softcap);
  }
  let masked = tf.add(tf.reshape(scores, [b, n, t, t]), positionMask(t, attrs));
  if (segments_BT !== undefined) {
    const differs_B1TT = tf.notEqual(
      tf.reshape(segments_BT, [b, 1, t, 1]),
      tf.reshape(segments_BT, [b, 1, 1, t]),
    );
    masked = tf.add(masked, tf.mul(tf.cast(differs_B1TT, "float32"), tf.scalar(hiddenScore)));
  }
  const probs_BNTT = tf.softmax(masked);
  const dropped =
    dropout === undefined
      ? probs_BNTT
      : tf.mul(probs_BNTT, probabilityFactors(dropout, attrs, [b, n, t, t]));
  const probs = tf.reshape(dropped, [b * k, (n / k) * t, t]);
  const out_BNTH = tf.reshape(tf.matMul(probs, v_BKTH), [b, n, t, h]);
  return tf.transpose(out_BNTH, [0, 2, 1, 3]);
}

/** [T, T]: 0 where the query may see the key, else a number that softmax turns to 0. */
function positionMask(numTokens: number, attrs: AttentionAttrs): tf.Tensor {
  const mask = Float32Array.from({ length: numTokens * numTokens }, (_, index) =>
    isVisible(attrs, Math.floor(index / numTokens), index % numTokens) ? 0 : hiddenScore,
  );
  return tf.tensor(mask, [numTokens, numTokens]);
}

/** What dropout multiplies probabilities by, [B, N, T, T]; 0 for keys that are in no block. */
function probabilityFactors(
  dropout: DropoutSource,
  attrs: AttentionAttrs,
  shape: [number, number, number, number],
): tf.Tensor {
  const [b, n, t] = shape;
  const factors = new Float32Array(b * n * t * t);
  const blocks = attentionBlocks(t, attrs);
  const firstGroups = firstMaskGroups(blocks, b * n);
  blocks.forEach(({ start, numQueries, firstKey, numKeys }, index) => {
    const size = b * n * numQueries * numKeys;
    const drawn = dropoutFactors(dropout, size, firstGroups[index]);
    for (let row = 0; row < b * n * numQueries; row++) {
      const query = start + (row % numQueries);
      const to = (Math.floor(row / numQueries) * t + query) * t + firstKey;
      factors.set(drawn.subarray(row * numKeys, (row + 1) * numKeys), to);
    }
  });
  return tf.tensor(factors, shape);
}

function registerAttentionGradient(kernelName: string, gradName: string, inputs: string[]): void {
  tf.registerGradient({
    kernelName,
    inputsToSave: inputs,
    gradFunc: (dy, saved, attrs) => {
      const named = Object.fromEntries(inputs.map((name, i) => [name, saved[i] as tf.Tensor]));
      // Each input asks by itself; the graph makes equal nodes once.
      const grads = (): tf.Tensor[] =>
        runFusedMany(gradName, { dy: dy as tf.Tensor, ...named }, attrs);
      const { segments, coordinates } = named;
      return {
        q: () => grads()[0] as tf.Tensor,
        k: () => grads()[1] as tf.Tensor,
        v: () => grads()[2] as tf.Tensor,
        ...(segments === undefined ? {} : { segments: () => tf.zerosLike(segments) }),
        ...(coordinates === undefined ? {} : { coordinates: () => tf.zerosLike(coordinates) }),
      };
    },
  });
}

registerAttentionGradient(Attention, AttentionGrad, ["q", "k", "v"]);
registerAttentionGradient(SegmentAttention, SegmentAttentionGrad, ["q", "k", "v", "segments"]);
registerAttentionGradient(DropoutAttention, DropoutAttentionGrad, ["q", "k", "v", "coordinates"]);
registerAttentionGradient(DropoutSegmentAttention, DropoutSegmentAttentionGrad, [
  ...["q", "k", "v", "segments", "coordinates"],
]);
