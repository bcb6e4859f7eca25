import type { GraphTensor } from "./builder.js";
import * as op from "./tf-ops.js";

/**
 * Rows of a vocabulary's matrix come in multiples of this in memory, with zeros behind the last one.
 * oneDNN takes up to 1.65 times as long for a bfloat16 product whose rows are of odd length, such as
 * GPT-2's 50,257 logits, and a multiple of 128 also divides into lanes.
 */
export const rowMultiple = 128;

export const paddedRows = (numRows: number): number =>
  Math.ceil(numRows / rowMultiple) * rowMultiple;

/** The matrix with zeros behind its rows. */
export function padRows(x: GraphTensor, numRows: number): GraphTensor {
  const [rows, width] = x.shape as [number, number];
  if (rows === numRows) return x;
  const zero = op.scalar(x.node.graph, 0, x.dtype);
  return op.concat([x, op.fill(zero, [numRows - rows, width])], 0);
}

/** The first rows: TensorFlow gives them out where they lie. */
export const leadingRows = (x: GraphTensor, numRows: number): GraphTensor =>
  op.slice(x, [0, ...x.shape.slice(1).map(() => 0)], [numRows, ...x.shape.slice(1)]);

/** The matrix of which a weight is the leading rows: a padded variable, or the weight itself. */
export function wholeMatrix(weight: GraphTensor): GraphTensor {
  if (weight.node.op !== "Slice") return weight;
  const [source, begin] = weight.node.inputs as [GraphTensor, GraphTensor];
  const starts = op.constantInts(begin);
  const isLeading = starts.length > 0 && starts.every((start) => start === 0);
  const sameWidth = op.sameShape(source.shape.slice(1), weight.shape.slice(1));
  return isLeading && sameWidth && source.node.op === "ReadVariableOp" ? source : weight;
}
