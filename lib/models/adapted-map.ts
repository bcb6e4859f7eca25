// Shape legend: N outputs and K inputs of a linear map, R rank of its adapter.
import * as tf from "@tensorflow/tfjs-core";
import { magnitudeScale, scaleColumns } from "#lib/ops/index";
import { dropped } from "./dropped.js";
import type { Adapter } from "./model.js";

interface LinearMap {
  /** float [N, K]; [K, N] where `isInputMajor` */
  readonly weight: tf.Tensor;
  readonly isInputMajor: boolean;
  readonly withBias: (y: tf.Tensor) => tf.Tensor;
}

/** W x + b, with what an adapter adds; what is dropped of x is dropped for the adapter alone. */
export function adaptedMap(adapter: Adapter | undefined, x: tf.Tensor, map: LinearMap): tf.Tensor {
  const product = mapped(map, x);
  if (adapter === undefined) return map.withBias(product);
  const { magnitude } = adapter;
  if (magnitude !== undefined) {
    return map.withBias(rescaled({ ...adapter, magnitude }, x, map, product));
  }
  const input = dropped(adapter.dropout, "adapters", x);
  return tf.add(map.withBias(product), lowRank(adapter, input));
}

const mapped = ({ weight, isInputMajor }: LinearMap, x: tf.Tensor): tf.Tensor =>
  tf.matMul(x, weight, false, !isInputMajor);

/** scale (x A^T) B^T; the factor meets the narrow product. */
function lowRank({ a, b, scale }: Adapter, x: tf.Tensor): tf.Tensor {
  const narrow = tf.mul(tf.matMul(x, a, false, true), tf.scalar(scale));
  return tf.matMul(narrow, b, false, true);
}

/**
 * m / |W + scale B A| times (W x + scale B A x). Where x is dropped, as in peft: W x stays whole, and what the
 * magnitude adds to it, of W too, is of the rest of x.
 */
function rescaled(
  adapter: Adapter & { readonly magnitude: tf.Tensor },
  x: tf.Tensor,
  map: LinearMap,
  product: tf.Tensor,
): tf.Tensor {
  const { a, b, scale, magnitude } = adapter;
  const factor_N = magnitudeScale(magnitude, { ...map, a_RK: a, b_NR: b, scale });
  const input = dropped(adapter.dropout, "adapters", x);
  if (input === x) return scaleColumns(tf.add(product, lowRank(adapter, x)), factor_N);
  const ofRest = mapped(map, input);
  const scaled = scaleColumns(tf.add(ofRest, lowRank(adapter, input)), factor_N);
  return tf.add(tf.sub(product, ofRest), scaled);
}
