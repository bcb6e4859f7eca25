import { type Nf4Form, nf4GroupBytes, nf4GroupElements, Nf4Writer, readNf4 } from "#lib/core/nf4";
import { type BaseModel, linearModules } from "./target-modules.js";
import { tiedHeadPath } from "./tied-modules.js";

/** Names of the weights that bitsandbytes quantises in transformers: each linear one but the output projection's. */
export const quantisableWeights = (base: BaseModel): ReadonlySet<string> =>
  new Set(
    linearModules(base)
      .filter(({ path }) => path !== tiedHeadPath)
      .map(({ path }) => `${path}.weight`),
  );

/** What a matrix is after it was quantised and dequantised, whole. @param isTransposed see `transposed` */
export function asQuantised(
  form: Nf4Form,
  weight: Float32Array,
  { name, shape }: { readonly name: string; readonly shape: readonly number[] },
  isTransposed: boolean,
): Float32Array {
  const bytes = new Uint8Array(Math.ceil(weight.length / nf4GroupElements) * nf4GroupBytes[form]);
  const writer = new Nf4Writer(form, { name, size: weight.length }, bytes);
  writer.add(isTransposed ? transposed(weight, shape) : weight);
  writer.finish();
  const values = readNf4(form, weight.length, bytes);
  return isTransposed ? transposed(values, [...shape].reverse()) : values;
}

/** A matrix with its rows as columns. bitsandbytes' blocks go along the inputs, which are rows in GPT-2's files. */
export function transposed(source: Float32Array, shape: readonly number[]): Float32Array {
  const [rows, columns] = shape as [number, number];
  const values = new Float32Array(source.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      values[column * rows + row] = source[row * columns + column] as number;
    }
  }
  return values;
}
