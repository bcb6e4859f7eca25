import { betaFields } from "./adam-family.js";
import { defineOptimizer } from "./kind.js";

/** Exports of lib/optim/assembly/lion.ts: p masters, m momentum, g gradient, n elements. */
interface LionKernels {
  setLionFactors(
    gradientScale: number,
    decayFactor: number,
    beta1: number,
    oneMinusBeta1: number,
    beta2: number,
    oneMinusBeta2: number,
    learningRate: number,
  ): void;
  lionToBfloat16(p: number, m: number, g: number, out: number, n: number): void;
  lionToFloat32(p: number, m: number, g: number, out: number, n: number): void;
}

/**
 * Lion (Chen et al. 2023, arXiv 2302.06675, Algorithm 2) in the order of operations of bitsandbytes' 32-bit Lion,
 * float32 throughout: the sign of an interpolation of momentum and gradient, decoupled decay. The betas are those that
 * transformers passes, `adam_beta1` and `adam_beta2`; the paper has 0.9 and 0.99. Nothing is paged: a paged Lion has the
 * same numbers.
 */
export const lion = defineOptimizer({
  name: "lion",
  names: ["lion_32bit", "paged_lion_32bit"],
  fields: betaFields,
  args: {},
  settings: (config) => ({
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    weightDecay: config.weight_decay,
  }),
  states: () => ["momentum"],
  update(
    kernels: LionKernels,
    { beta1, beta2, weightDecay },
    { learningRate, gradientScale, decays },
  ) {
    kernels.setLionFactors(
      gradientScale,
      decays ? 1 - learningRate * weightDecay : 1,
      beta1,
      1 - beta1,
      beta2,
      1 - beta2,
      learningRate,
    );
    return ({ masters, states, gradient, wire, isBfloat16, numElements }) => {
      const run = isBfloat16 ? kernels.lionToBfloat16 : kernels.lionToFloat32;
      run(masters, states.momentum, gradient, wire, numElements);
    };
  },
});
