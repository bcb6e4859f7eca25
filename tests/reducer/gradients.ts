import type { WireDtype } from "#lib/core/dtype";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import type { ChosenOptimizer, Update } from "#lib/optim/index";

export const smallLayout = (numMatrixBlocks: number, dtype: WireDtype): ParameterLayout =>
  buildParameterLayout(
    [
      { name: "matrix", shape: [numMatrixBlocks, blockElements] },
      { name: "vector", shape: [1_000] },
    ],
    dtype,
  );

/** A gradient of the whole space in wire form: finite values of every magnitude up to 2. */
export function wireGradient(layout: ParameterLayout, seed: number): Uint8Array {
  const bytes = new Uint8Array(wireSizeBytes(layout));
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  const next = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 8;
  };
  for (const { start, end, dtype } of layout.regions) {
    const at = wireOffsetBytes(layout, start);
    if (dtype === "bfloat16") {
      const halves = new Uint16Array(bytes.buffer, at, end - start);
      for (let i = 0; i < halves.length; i++) halves[i] = next() & 0xbfff;
    } else {
      const floats = new Float32Array(bytes.buffer, at, end - start);
      for (let i = 0; i < floats.length; i++) floats[i] = next() / 2 ** 24 - 0.5;
    }
  }
  return bytes;
}

export const adamW: ChosenOptimizer = {
  name: "adamw",
  settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 },
};

export const updateOf = (updateNumber: number, gradientScale = 1): Update => ({
  ...{ learningRate: 1e-3, updateNumber, gradientScale },
});
