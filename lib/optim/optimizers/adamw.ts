import { adamFactors, adamFields, adamSettings } from "./adam-family.js";
import { defineOptimizer } from "./kind.js";

/** Exports of lib/optim/assembly/adamw.ts: p masters, m and v moments, g gradient, n elements. */
interface AdamWKernels {
  setAdamWFactors(
    gradientScale: number,
    decayFactor: number,
    ...factors: ReturnType<typeof adamFactors>
  ): void;
  adamWToBfloat16(p: number, m: number, v: number, g: number, out: number, n: number): void;
  adamWToFloat32(p: number, m: number, v: number, g: number, out: number, n: number): void;
}

/**
 * AdamW (Loshchilov and Hutter, arXiv 1711.05101) in the order of operations of torch.optim.AdamW, float32
 * throughout. The decay is decoupled.
 */
export const adamW = defineOptimizer({
  name: "adamw",
  names: ["adamw_torch_fused", "adamw_torch"],
  fields: adamFields,
  args: {},
  settings: adamSettings,
  states: () => ["first_moment", "second_moment"],
  update(kernels: AdamWKernels, settings, update) {
    const { learningRate, gradientScale, decays } = update;
    const decayFactor = decays ? 1 - learningRate * settings.weightDecay : 1;
    kernels.setAdamWFactors(gradientScale, decayFactor, ...adamFactors(settings, update));
    return ({ masters, states, gradient, wire, isBfloat16, numElements }) => {
      const run = isBfloat16 ? kernels.adamWToBfloat16 : kernels.adamWToFloat32;
      run(masters, states.first_moment, states.second_moment, gradient, wire, numElements);
    };
  },
});
