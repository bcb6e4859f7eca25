// Shape legend: N elements, G groups of 16,384, W words of 8 elements, S blocks of 64 of a group.
import {
  type Nf4Form,
  nf4BlockElements,
  nf4BlocksPerGroup,
  nf4FactorByte,
  nf4GroupBytes,
  nf4GroupElements,
  nf4Levels,
  nf4PackedBytes,
  nf4ScaleLevels,
} from "#lib/core/nf4";
import type { GraphDtype, GraphTensor } from "./builder.js";
import * as op from "./tf-ops.js";
import { xlaTensor } from "./xla-function.js";

/** Bytes of a tensor in the form: [G, bytes of a group]. */
export const nf4Shape = (form: Nf4Form, size: number): readonly [number, number] => [
  Math.ceil(size / nf4GroupElements),
  nf4GroupBytes[form],
];

const wordElements = 8;
/** By which an element comes to the low end of its word, little-endian: a byte begins with its high half. */
const wordShifts = Int32Array.of(4, 0, 12, 8, 20, 16, 28, 24);

/**
 * The values that a tensor's bytes stand for: level times scale in float32, rounded once. Equal to bitsandbytes'
 * dequantize_4bit to the last bit.
 *
 * @param bytes_GB uint8, as `lib/core/nf4.ts` lays them out
 * @param shape of the tensor
 * @param dtype float32, bfloat16 or float16
 */
export function dequantised(
  form: Nf4Form,
  bytes_GB: GraphTensor,
  shape: readonly number[],
  dtype: GraphDtype,
): GraphTensor {
  const graph = bytes_GB.node.graph;
  const numGroups = bytes_GB.shape[0] as number;
  const size = op.numElements(shape);
  const packed = op.slice(bytes_GB, [0, 0], [numGroups, nf4PackedBytes]);
  const wordsPerBlock = nf4BlockElements / wordElements;
  const shape_GSW = [numGroups, nf4BlocksPerGroup, wordsPerBlock, 1] as const;
  const words_GSW = op.bitcast(op.reshape(packed, [...shape_GSW, 4]), "int32", shape_GSW);
  return xlaTensor(graph, "Dequantised", [words_GSW, scales(form, bytes_GB)], (args) => {
    const [words, scales_GS] = args as [GraphTensor, GraphTensor];
    const body = words.node.graph;
    const shifts = op.constant(body, wordShifts, "int32", [wordElements]);
    const codes = op.bitwiseAnd(op.rightShift(words, shifts), op.intScalar(body, 15));
    const levels = op.gather(levelTable(words, nf4Levels), codes, 0);
    const values = op.mul(levels, op.reshape(scales_GS, [numGroups, nf4BlocksPerGroup, 1, 1]));
    const flat_N = op.slice(op.reshape(values, [numGroups * nf4GroupElements]), [0], [size]);
    return op.cast(op.reshape(flat_N, shape), dtype);
  });
}

const levelTable = (like: GraphTensor, levels: Readonly<Float32Array>): GraphTensor =>
  op.constant(like.node.graph, Float32Array.from(levels), "float32", [levels.length]);

/** What the levels of each block are times, float32 [G, S]. Outside of XLA's functions, which round a x b + c once. */
function scales(form: Nf4Form, bytes_GB: GraphTensor): GraphTensor {
  const numGroups = bytes_GB.shape[0] as number;
  const floats = (from: number, count: number): GraphTensor => {
    const bytes = op.slice(bytes_GB, [0, from], [numGroups, 4 * count]);
    return op.bitcast(op.reshape(bytes, [numGroups, count, 4]), "float32", [numGroups, count]);
  };
  if (form === "nf4") return floats(nf4PackedBytes, nf4BlocksPerGroup);
  const codes_GS = op.slice(bytes_GB, [0, nf4PackedBytes], [numGroups, nf4BlocksPerGroup]);
  const levels_GS = op.gather(levelTable(bytes_GB, nf4ScaleLevels), op.cast(codes_GS, "int32"), 0);
  return op.add(op.mul(levels_GS, floats(nf4FactorByte, 1)), floats(nf4FactorByte + 4, 1));
}
