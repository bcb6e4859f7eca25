import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { defineOptimizer } from "./kind.js";

/** Exports of lib/optim/assembly/sgd.ts: p masters, b buffer, g gradient, n elements. */
interface SgdKernels {
  setSgdFactors(
    gradientScale: number,
    coupledDecay: number,
    momentum: number,
    oneMinusDampening: number,
    gradientShare: number,
    bufferShare: number,
    negativeLearningRate: number,
  ): void;
  sgdToBfloat16(p: number, b: number, g: number, out: number, n: number): void;
  sgdToFloat32(p: number, b: number, g: number, out: number, n: number): void;
}

/**
 * Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov's, in the order of operations of
 * torch.optim.SGD, float32 throughout. Weight decay is added to the gradient (L2).
 */
export const sgd = defineOptimizer({
  name: "sgd",
  names: ["sgd"],
  fields: {},
  args: {
    momentum: z.number().min(0).default(0),
    dampening: z.number().default(0),
    nesterov: z.boolean().default(false),
  },
  settings(config, { momentum, dampening, nesterov }) {
    if (nesterov && (momentum === 0 || dampening !== 0)) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "nesterov, momentum and dampening in optim_args",
        reason: "Nesterov's momentum needs a momentum above 0, and no dampening",
      });
    }
    if (momentum === 0 && dampening !== 0) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "dampening and momentum in optim_args",
        reason: "dampening is of the momentum, which is 0",
      });
    }
    return { momentum, dampening, nesterov, weightDecay: config.weight_decay };
  },
  states: ({ momentum }) => (momentum === 0 ? [] : ["momentum_buffer"]),
  update(
    kernels: SgdKernels,
    { momentum, dampening, nesterov, weightDecay },
    { learningRate, updateNumber, gradientScale, decays },
  ) {
    const isPlain = momentum === 0;
    kernels.setSgdFactors(
      gradientScale,
      decays ? weightDecay : 0,
      momentum,
      isPlain || updateNumber === 1 ? 1 : 1 - dampening,
      nesterov ? 1 : 0,
      nesterov ? momentum : 1,
      -learningRate,
    );
    return ({ masters, states, gradient, wire, isBfloat16, numElements }) => {
      // Without momentum nothing is kept: the gradient, which is spent after this, is the buffer.
      const buffer = isPlain ? gradient : states.momentum_buffer;
      const run = isBfloat16 ? kernels.sgdToBfloat16 : kernels.sgdToFloat32;
      run(masters, buffer, gradient, wire, numElements);
    };
  },
});
