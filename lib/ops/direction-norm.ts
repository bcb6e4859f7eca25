// Shape legend: N outputs and K inputs of a linear map, R rank of its adapter.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const DirectionNorm = "DirectionNorm";

/** A linear map with a low-rank addition, W + scale B A. */
interface LowRankMap {
  /** float [N, K]; [K, N] where `isInputMajor` */
  readonly weight: tf.Tensor;
  readonly isInputMajor: boolean;
  /** float [R, K] */
  readonly a_RK: tf.Tensor;
  /** float [N, R] */
  readonly b_NR: tf.Tensor;
  readonly scale: number;
}

/**
 * The Euclidean norm of every row of W + scale B A, over the inputs of one output, without making that matrix:
 * |W|^2 + 2 scale (W A^T).B + scale^2 (B A A^T).B.
 *
 * It is to be detached (`magnitudeScale`): there is no gradient.
 *
 * @returns float32 [N]
 */
function directionNorm({ weight, isInputMajor, a_RK, b_NR, scale }: LowRankMap): tf.Tensor {
  const wa_NR = tf.matMul(weight, a_RK, isInputMajor, true);
  const baa_NR = tf.matMul(b_NR, tf.matMul(a_RK, a_RK, false, true));
  if (hasKernel(DirectionNorm)) {
    const inputs = { weight, wa: wa_NR, baa: baa_NR, b: b_NR };
    return runFused(DirectionNorm, inputs, { isInputMajor, scale });
  }
  const square_N = tf.sum(tf.square(weight), isInputMajor ? 0 : 1);
  const cross_NR = tf.add(tf.mul(wa_NR, 2 * scale), tf.mul(baa_NR, scale * scale));
  return tf.sqrt(tf.relu(tf.add(square_N, tf.sum(tf.mul(cross_NR, b_NR), 1))));
}

/**
 * What DoRA multiplies the outputs of a map by: magnitude / |W + scale B A|. The norm is taken to be a constant
 * by backward (DoRA, Liu et al. 2024, arXiv 2402.09353, section 4.3), as in peft.
 *
 * @param magnitude_N float32
 * @returns float32 [N]
 */
export function magnitudeScale(magnitude_N: tf.Tensor, map: LowRankMap): tf.Tensor {
  const detached = tf.customGrad((...args) => {
    const [magnitude, save] = args as [tf.Tensor, tf.GradSaveFunc];
    const norm_N = directionNorm(map);
    save([norm_N]);
    return {
      value: tf.div(magnitude, norm_N),
      gradFunc: (dy, [norm]) => [tf.div(dy as tf.Tensor, norm as tf.Tensor)],
    };
  });
  return detached(magnitude_N);
}
