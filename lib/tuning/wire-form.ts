import { isNf4, type WireForm } from "#lib/core/dtype";
import {
  type ParameterLayout,
  regionAt,
  type TensorSlot,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import type { GraphBuilder, GraphTensor } from "#lib/graph/builder";
import { leadingRows } from "#lib/graph/padded-rows";
import { nf4Shape } from "#lib/graph/nf4";
import * as op from "#lib/graph/tf-ops";

/**
 * Tensors at the edge of the graph. TensorFlow's addon knows no half types, so a tensor of one goes
 * in and out as int32 pairs, the first element in the low half, which is also its form on the wire. One of 4 bits
 * goes in as the int32 words of its bytes.
 */
export interface WireView {
  readonly slot: TensorSlot;
  readonly dtype: WireForm;
  /** Type and number of the 4-byte words that the tensor takes on the wire. */
  readonly words: "float32" | "int32";
  readonly numWords: number;
  readonly byteOffset: number;
}

export function wireViewOf(layout: ParameterLayout, slot: TensorSlot): WireView {
  const { dtype } = regionAt(layout, slot.offset);
  return {
    ...{ slot, dtype },
    words: dtype === "float32" ? "float32" : "int32",
    numWords: numWordsOf(dtype, slot.size),
    byteOffset: wireOffsetBytes(layout, slot.offset),
  };
}

function numWordsOf(form: WireForm, size: number): number {
  if (form === "float32") return size;
  // A tensor of odd size takes half a word of the padding that follows it.
  return isNf4(form) ? op.numElements(nf4Shape(form, size)) / 4 : Math.ceil(size / 2);
}

/**
 * The tensor's words in a buffer of the space in wire form: a view, no copy.
 *
 * @param firstByte where in the space the buffer begins
 */
export function wordsOf(
  view: WireView,
  wireBytes: Uint8Array,
  firstByte = 0,
): Float32Array | Int32Array {
  const start = wireBytes.byteOffset + view.byteOffset - firstByte;
  const buffer = wireBytes.buffer as ArrayBuffer;
  return view.words === "float32"
    ? new Float32Array(buffer, start, view.numWords)
    : new Int32Array(buffer, start, view.numWords);
}

/** A feed of the tensor's words and the tensor that they mean, in wire type and true shape; of 4 bits the bytes. */
export function unpackWords(
  graph: GraphBuilder,
  name: string,
  view: WireView,
): { readonly feed: GraphTensor; readonly value: GraphTensor } {
  const feed = op.placeholder(graph, name, view.words, [view.numWords]);
  if (view.words === "float32") return { feed, value: op.reshape(feed, view.slot.shape) };
  if (isNf4(view.dtype)) {
    const bytes = op.bitcast(feed, "uint8", [view.numWords, 4]);
    return { feed, value: op.reshape(bytes, nf4Shape(view.dtype, view.slot.size)) };
  }
  const pairs = op.bitcast(feed, view.dtype, [view.numWords, 2]);
  const flat = op.reshape(pairs, [view.numWords * 2]);
  return { feed, value: op.reshape(op.slice(flat, [0], [view.slot.size]), view.slot.shape) };
}

/** The words of a variable, without the rows that are behind the tensor's. */
export function heldWords(view: WireView, stored: GraphTensor): GraphTensor {
  if (isNf4(view.dtype)) {
    return op.bitcast(op.reshape(stored, [view.numWords, 4]), "int32", [view.numWords]);
  }
  const [rows] = view.slot.shape;
  const isWhole = rows === undefined || stored.shape[0] === rows;
  return packWords(view, isWhole ? stored : leadingRows(stored, rows));
}

/** The words of a trained float32 tensor on the wire, rounded to nearest even when they are of a half type. */
export function packWords(view: WireView, value: GraphTensor): GraphTensor {
  const flat = op.reshape(value, [view.slot.size]);
  if (view.words === "float32") return op.cast(flat, "float32");
  if (isNf4(view.dtype))
    throw new RangeError(`${view.slot.name} is of 4 bits, and has no gradient`);
  const half = op.cast(flat, view.dtype);
  const padded = op.pad(half, [[0, view.numWords * 2 - view.slot.size]], 0);
  return op.bitcast(op.reshape(padded, [view.numWords, 2]), "int32", [view.numWords]);
}
