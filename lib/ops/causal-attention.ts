// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const CausalAttention = "CausalAttention";
export const CausalAttentionGrad = "CausalAttentionGrad";
export interface CausalAttentionAttrs extends tf.NamedAttrMap {
  /** Factor of the scores, usually 1/sqrt(H). */
  readonly scale: number;
}

/**
 * Causal grouped-query attention: softmax(scale * q k^T + mask) v, a query sees keys up to its own
 * position.
 *
 * @param q_BTNH float, already rotated
 * @param k_BTKH float, K divides N; each key head serves N/K neighbouring query heads
 * @param v_BTKH float
 * @returns float [B, T, N, H]
 */
export function causalAttention(
  q_BTNH: tf.Tensor,
  k_BTKH: tf.Tensor,
  v_BTKH: tf.Tensor,
  scale: number,
): tf.Tensor {
  return hasKernel(CausalAttention)
    ? runFused(CausalAttention, { q: q_BTNH, k: k_BTKH, v: v_BTKH }, { scale })
    : causalAttentionPrimitive(q_BTNH, k_BTKH, v_BTKH, scale);
}

/** The same out of elementary ops, with the whole score matrix: the oracle of the fused form. */
export function causalAttentionPrimitive(
  q_BTNH: tf.Tensor,
  k_BTKH: tf.Tensor,
  v_BTKH: tf.Tensor,
  scale: number,
): tf.Tensor {
  const [b, t, n, h] = q_BTNH.shape as [number, number, number, number];
  const k = k_BTKH.shape[2] as number;
  const q_BKGTH = tf.reshape(tf.transpose(q_BTNH, [0, 2, 1, 3]), [b * k, (n / k) * t, h]);
  const k_BKTH = tf.reshape(tf.transpose(k_BTKH, [0, 2, 1, 3]), [b * k, t, h]);
  const v_BKTH = tf.reshape(tf.transpose(v_BTKH, [0, 2, 1, 3]), [b * k, t, h]);
  const scores = tf.mul(tf.matMul(q_BKGTH, k_BKTH, false, true), tf.scalar(scale));
  const masked = tf.add(tf.reshape(scores, [b * k, n / k, t, t]), causalMask(t));
  const probs = tf.reshape(tf.softmax(masked), [b * k, (n / k) * t, t]);
  const out_BNTH = tf.reshape(tf.matMul(probs, v_BKTH), [b, n, t, h]);
  return tf.transpose(out_BNTH, [0, 2, 1, 3]);
}

/** [T, T]: 0 where the key is not after the query, else a number that softmax turns to 0. */
function causalMask(numTokens: number): tf.Tensor {
  const mask = new Float32Array(numTokens * numTokens);
  for (let query = 0; query < numTokens; query++) {
    mask.fill(-1e30, query * numTokens + query + 1, (query + 1) * numTokens);
  }
  return tf.tensor(mask, [numTokens, numTokens]);
}

tf.registerGradient({
  kernelName: CausalAttention,
  inputsToSave: ["q", "k", "v"],
  gradFunc: (dy, saved, attrs) => {
    const [q, k, v] = saved as [tf.Tensor, tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] =>
      runFusedMany(CausalAttentionGrad, { dy: dy as tf.Tensor, q, k, v }, attrs);
    return {
      q: () => grads()[0] as tf.Tensor,
      k: () => grads()[1] as tf.Tensor,
      v: () => grads()[2] as tf.Tensor,
    };
  },
});
