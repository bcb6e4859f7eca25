import { float32ToBfloat16, float32ToFloat16 } from "./bf16.js";
import { isNf4 } from "./dtype.js";
import { nf4GroupElements, Nf4Writer } from "./nf4.js";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  regionAt,
  type TensorSlot,
  wireOffsetBytes,
  wireSizeBytes,
} from "./parameter-layout.js";

/** Elements converted at a time: 16 MiB of float32. */
const chunkElements = 64 * blockElements;

/**
 * Where a space begins in its shared buffer. TensorFlow borrows 64-byte aligned arrays and copies all
 * others; the C library puts 16 bytes before a large block, which begins at a page.
 */
const startBytes = 48;

/** Fills the values of a range of a space; what it leaves is 0. */
export interface LoadValues {
  (range: ElementRange, into: Float32Array): Promise<void>;
  /** What the files of the model call the tensor whose values a tensor of the space has; absent: it has its own. */
  readonly storedAs?: (name: string) => string | undefined;
}

/** Room in wire form on shared memory; pages that nobody writes to take no memory. */
function sharedBytes(numBytes: number): Uint8Array<SharedArrayBuffer> {
  return new Uint8Array(new SharedArrayBuffer(startBytes + numBytes), startBytes, numBytes);
}

/** Room for a whole space. */
export const sharedWireSpace = (layout: ParameterLayout): Uint8Array<SharedArrayBuffer> =>
  sharedBytes(wireSizeBytes(layout));

/** Bytes of a range in wire form. */
export const wireRangeBytes = (layout: ParameterLayout, { start, end }: ElementRange): number =>
  wireOffsetBytes(layout, end) - wireOffsetBytes(layout, start);

/** A whole space in wire form on shared memory, from float32 values; see `readWireRange`. */
export async function readWireSpace(
  layout: ParameterLayout,
  load: LoadValues,
): Promise<Uint8Array<SharedArrayBuffer>> {
  const wire = sharedWireSpace(layout);
  await readWireRange(layout, { start: 0, end: layout.numElements }, load, wire);
  return wire;
}

/**
 * A range in wire form from float32 values; half types round to nearest even.
 *
 * @param range cuts no tensor of a form that keeps elements together
 * @param into of the range's size in wire form
 */
export async function readWireRange(
  layout: ParameterLayout,
  range: ElementRange,
  load: LoadValues,
  into: Uint8Array,
): Promise<void> {
  const chunk = new Float32Array(Math.min(chunkElements, range.end - range.start));
  const firstByte = wireOffsetBytes(layout, range.start);
  for (let { start } = range; start < range.end; ) {
    const region = regionAt(layout, start);
    if (isNf4(region.dtype)) {
      const part = { start, end: Math.min(region.end, range.end) };
      await quantiseRange(
        layout,
        part,
        load,
        chunk,
        into.subarray(wireOffsetBytes(layout, start) - firstByte),
      );
      start = part.end;
      continue;
    }
    const end = Math.min(start + chunkElements, region.end, range.end);
    const values = chunk.subarray(0, end - start).fill(0);
    await load({ start, end }, values);
    const at = into.byteOffset + wireOffsetBytes(layout, start) - firstByte;
    if (region.dtype === "float32") {
      new Float32Array(into.buffer, at, values.length).set(values);
    } else {
      const narrow = region.dtype === "bfloat16" ? float32ToBfloat16 : float32ToFloat16;
      narrow(values, new Uint16Array(into.buffer, at, values.length));
    }
    start = end;
  }
}

/** @param chunk what holds the values of a part at a time */
async function quantiseRange(
  layout: ParameterLayout,
  range: ElementRange,
  load: LoadValues,
  chunk: Float32Array,
  into: Uint8Array,
): Promise<void> {
  const form = regionAt(layout, range.start).dtype;
  const byteOf = (element: number): number =>
    wireRangeBytes(layout, { start: range.start, end: element });
  into.fill(0, 0, byteOf(range.end));
  for (const { name, offset, size } of layout.tensors) {
    const end = offset + Math.ceil(size / nf4GroupElements) * nf4GroupElements;
    if (end <= range.start || offset >= range.end || !isNf4(form)) continue;
    if (offset < range.start || end > range.end) throw new RangeError(`The range cuts ${name}`);
    const writer = new Nf4Writer(form, { name, size }, into.subarray(byteOf(offset), byteOf(end)));
    for (let start = offset; start < offset + size; start += chunk.length) {
      const part = { start, end: Math.min(start + chunk.length, offset + size) };
      const values = chunk.subarray(0, part.end - start).fill(0);
      await load(part, values);
      writer.add(values);
    }
    writer.finish();
  }
}

/**
 * A range in wire form, wherever it is cut: a tensor whose form keeps elements together is made as a whole, in memory
 * of its own, and what lies in the range is taken.
 *
 * @param into of the range's size in wire form
 */
export async function readCutRange(
  layout: ParameterLayout,
  range: ElementRange,
  load: LoadValues,
  into: Uint8Array,
): Promise<void> {
  const byteOf = (element: number): number => wireRangeBytes(layout, { ...range, end: element });
  for (const region of layout.regions) {
    const part = {
      start: Math.max(range.start, region.start),
      end: Math.min(range.end, region.end),
    };
    if (part.start >= part.end) continue;
    const bytes = into.subarray(byteOf(part.start), byteOf(part.end));
    if (!isNf4(region.dtype)) {
      await readWireRange(layout, part, load, bytes);
      continue;
    }
    bytes.fill(0);
    for (const { offset, size } of layout.tensors) {
      const whole = {
        start: offset,
        end: offset + Math.ceil(size / nf4GroupElements) * nf4GroupElements,
      };
      const kept = {
        start: Math.max(part.start, whole.start),
        end: Math.min(part.end, whole.end),
      };
      if (kept.start >= kept.end) continue;
      const tensor = new Uint8Array(wireRangeBytes(layout, whole));
      await readWireRange(layout, whole, load, tensor);
      const first = wireRangeBytes(layout, { start: whole.start, end: kept.start });
      const taken = tensor.subarray(first, first + wireRangeBytes(layout, kept));
      into.set(taken, byteOf(kept.start));
    }
  }
}

/** Least share of a space, and least bytes, that a piece of it takes if there are so many. */
const pieceShare = 1 / 16;
const minPieceBytes = 2 ** 25;

/**
 * A space in pieces of whole tensors, for who needs not hold it at once: consecutive ranges from the first
 * element to the last. A piece has no more than a sixteenth of the space, or 32 MiB, unless one tensor has.
 */
export function wirePieces(layout: ParameterLayout): readonly ElementRange[] {
  if (layout.numElements === 0) return [];
  const maxBytes = Math.max(minPieceBytes, wireSizeBytes(layout) * pieceShare);
  const starts = [0];
  for (const { offset, size } of layout.tensors) {
    const range = { start: starts.at(-1) as number, end: offset + size };
    const isFull = wireRangeBytes(layout, range) > maxBytes;
    if (isFull && range.start < offset) starts.push(offset);
  }
  return starts.map((start, piece) => ({ start, end: starts[piece + 1] ?? layout.numElements }));
}

/** Room for any piece of a space. */
export const pieceBuffer = (layout: ParameterLayout): Uint8Array<SharedArrayBuffer> =>
  sharedBytes(Math.max(0, ...wirePieces(layout).map((range) => wireRangeBytes(layout, range))));

/**
 * Passes a space on in its pieces, one after the other, in one buffer.
 *
 * @param fill writes a range in wire form into bytes of its size
 * @param take gets the number of the piece, and its bytes for the time of the call
 * @param buffer for who passes several versions on: fresh memory costs more than the copy
 */
export async function passPieces(
  layout: ParameterLayout,
  fill: (range: ElementRange, into: Uint8Array<SharedArrayBuffer>) => Promise<void>,
  take: (piece: number, wireBytes: Uint8Array<SharedArrayBuffer>) => Promise<void> | void,
  buffer = pieceBuffer(layout),
): Promise<void> {
  for (const [piece, range] of wirePieces(layout).entries()) {
    const wireBytes = buffer.subarray(0, wireRangeBytes(layout, range));
    await fill(range, wireBytes);
    await take(piece, wireBytes);
  }
}

/**
 * Fills a range of a space with the parts of its tensors that lie in it; padding stays as it is.
 *
 * @param read the whole tensor, float32; for spaces of small tensors
 */
export async function fillRange(
  layout: ParameterLayout,
  range: ElementRange,
  into: Float32Array,
  read: (slot: TensorSlot) => Promise<Float32Array>,
): Promise<void> {
  for (const slot of layout.tensors) {
    const start = Math.max(range.start, slot.offset);
    const end = Math.min(range.end, slot.offset + slot.size);
    if (start >= end) continue;
    const values = await read(slot);
    into.set(values.subarray(start - slot.offset, end - slot.offset), start - range.start);
  }
}
