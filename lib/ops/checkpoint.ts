import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const BlockStart = "BlockStart";
export const BlockEnd = "BlockEnd";
/** What backward meets first of a block: the gradient of its output. */
export const BlockEndGrad = "BlockEndGrad";

/**
 * A block of a model whose activations backward may compute again from `x` (activation checkpointing,
 * Chen et al. 2016). Values and gradients are those of `block(x)`; whether anything is computed twice
 * is up to the backend.
 *
 * @param x float, what goes from block to block
 * @param block may use other tensors too, which are kept
 * @returns float, a new tensor
 */
export function checkpointed(x: tf.Tensor, block: (x: tf.Tensor) => tf.Tensor): tf.Tensor {
  if (!hasKernel(BlockStart)) return block(x);
  return runFused(BlockEnd, { x: block(runFused(BlockStart, { x })) });
}

tf.registerGradient({
  kernelName: BlockStart,
  gradFunc: (dy) => ({ x: () => dy as tf.Tensor }),
});

tf.registerGradient({
  kernelName: BlockEnd,
  inputsToSave: ["x"],
  gradFunc: (dy, saved) => {
    const gradient = runFused(BlockEndGrad, { dy: dy as tf.Tensor, y: saved[0] as tf.Tensor });
    return { x: () => gradient };
  },
});
