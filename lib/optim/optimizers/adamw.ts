import { z } from "zod";
import { defineOptimizer } from "./kind.js";

/** Exports of lib/optim/assembly/adamw.ts: p masters, m and v moments, g gradient, n elements. */
interface AdamWKernels {
  setAdamWFactors(
    gradientScale: number,
    decayFactor: number,
    oneMinusBeta1: number,
    beta2: number,
    oneMinusBeta2: number,
    negativeStepSize: number,
    biasCorrection2Sqrt: number,
    epsilon: number,
  ): void;
  adamWToBfloat16(p: number, m: number, v: number, g: number, out: number, n: number): void;
  adamWToFloat32(p: number, m: number, v: number, g: number, out: number, n: number): void;
}

/**
 * AdamW (Loshchilov and Hutter, arXiv 1711.05101) in the order of operations of torch.optim.AdamW, float32
 * throughout. The factors are computed in float64 and rounded once, as torch does. The decay is decoupled.
 */
export const adamW = defineOptimizer({
  name: "adamw",
  names: ["adamw_torch_fused", "adamw_torch"],
  fields: {
    adam_beta1: z.number().min(0).lt(1).default(0.9),
    adam_beta2: z.number().min(0).lt(1).default(0.999),
    adam_epsilon: z.number().min(0).default(1e-8),
  },
  args: {},
  settings: (config) => ({
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    epsilon: config.adam_epsilon,
    weightDecay: config.weight_decay,
  }),
  states: () => ["first_moment", "second_moment"],
  update(
    kernels: AdamWKernels,
    { beta1, beta2, epsilon, weightDecay },
    { learningRate, updateNumber, gradientScale, decays },
  ) {
    const biasCorrection1 = 1 - beta1 ** updateNumber;
    const biasCorrection2 = 1 - beta2 ** updateNumber;
    kernels.setAdamWFactors(
      gradientScale,
      decays ? 1 - learningRate * weightDecay : 1,
      1 - beta1,
      beta2,
      1 - beta2,
      -(learningRate / biasCorrection1),
      Math.sqrt(biasCorrection2),
      epsilon,
    );
    return ({ masters, states, gradient, wire, isBfloat16, numElements }) => {
      const run = isBfloat16 ? kernels.adamWToBfloat16 : kernels.adamWToFloat32;
      run(masters, states.first_moment, states.second_moment, gradient, wire, numElements);
    };
  },
});
