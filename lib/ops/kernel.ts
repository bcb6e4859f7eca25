import * as tf from "@tensorflow/tfjs-core";

/** Whether the active backend brings a fused kernel; if not, ops use their primitive form. */
export const hasKernel = (name: string): boolean =>
  tf.getKernel(name, tf.getBackend()) !== undefined;

/** Runs a fused kernel with one output. */
export const runFused = (
  name: string,
  inputs: tf.NamedTensorMap,
  attrs: tf.NamedAttrMap = {},
): tf.Tensor => tf.engine().runKernel(name, inputs, attrs) as tf.Tensor;

/** Runs a fused kernel with several outputs. */
export const runFusedMany = (
  name: string,
  inputs: tf.NamedTensorMap,
  attrs: tf.NamedAttrMap = {},
): tf.Tensor[] => tf.engine().runKernel(name, inputs, attrs) as tf.Tensor[];
