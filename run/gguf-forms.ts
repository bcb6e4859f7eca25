import { halfSplitRow } from "#lib/checkpoint/gguf/decode";
import type { TensorForm } from "#lib/models/llama-cpp/index";

/** A weight's shape in a GGUF file. */
export const ggufShape = (shape: readonly number[], form: TensorForm): readonly number[] =>
  form.kind === "transposed" ? [...shape].reverse() : shape;

/** A weight's elements in the order and with the values that llama.cpp has. @param shape the weight's, row-major */
export function toGguf(
  values: Float32Array,
  form: TensorForm,
  shape: readonly number[],
): Float32Array {
  switch (form.kind) {
    case "as-is":
      return values;
    case "plus-one":
      return values.map((value) => value + 1);
    case "transposed":
      return transposed(values, shape);
    case "interleaved":
      return withRows(values, shape, (row) => [row, halfSplitRow(row, form.headDim)]);
  }
}

/** The way back. */
export function fromGguf(
  values: Float32Array,
  form: TensorForm,
  shape: readonly number[],
): Float32Array {
  switch (form.kind) {
    case "as-is":
      return values;
    case "plus-one":
      return values.map((value) => value - 1);
    case "transposed":
      return transposed(values, ggufShape(shape, form));
    case "interleaved":
      return withRows(values, shape, (row) => [halfSplitRow(row, form.headDim), row]);
  }
}

function transposed(values: Float32Array, shape: readonly number[]): Float32Array {
  const [rows, columns] = shape as [number, number];
  const turned = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      turned[column * rows + row] = values[row * columns + column] as number;
    }
  }
  return turned;
}

/** @param placesOf where a row comes from, and where it goes */
function withRows(
  values: Float32Array,
  shape: readonly number[],
  placesOf: (row: number) => readonly [from: number, to: number],
): Float32Array {
  const numRows = shape[0] as number;
  const width = values.length / numRows;
  const moved = new Float32Array(values.length);
  for (let row = 0; row < numRows; row++) {
    const [from, to] = placesOf(row);
    moved.set(values.subarray(from * width, (from + 1) * width), to * width);
  }
  return moved;
}
