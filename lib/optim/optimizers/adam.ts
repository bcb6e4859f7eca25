import { adamFactors, adamFields, adamSettings } from "./adam-family.js";
import { defineOptimizer } from "./kind.js";

/** Exports of lib/optim/assembly/adam.ts: p masters, m and v moments, g gradient, n elements. */
interface AdamKernels {
  setL2AdamFactors(
    gradientScale: number,
    coupledDecay: number,
    ...factors: ReturnType<typeof adamFactors>
  ): void;
  adamToBfloat16(p: number, m: number, v: number, g: number, out: number, n: number): void;
  adamToFloat32(p: number, m: number, v: number, g: number, out: number, n: number): void;
}

/**
 * Adam (Kingma and Ba, arXiv 1412.6980) in the order of operations of torch.optim.Adam, float32 throughout: weight decay
 * is added to the gradient (L2), and so goes through the moments. transformers has no name for it.
 */
export const adam = defineOptimizer({
  name: "adam",
  names: ["adam"],
  fields: adamFields,
  args: {},
  settings: adamSettings,
  states: () => ["first_moment", "second_moment"],
  update(kernels: AdamKernels, settings, update) {
    const coupledDecay = update.decays ? settings.weightDecay : 0;
    kernels.setL2AdamFactors(update.gradientScale, coupledDecay, ...adamFactors(settings, update));
    return ({ masters, states, gradient, wire, isBfloat16, numElements }) => {
      const run = isBfloat16 ? kernels.adamToBfloat16 : kernels.adamToFloat32;
      run(masters, states.first_moment, states.second_moment, gradient, wire, numElements);
    };
  },
});
