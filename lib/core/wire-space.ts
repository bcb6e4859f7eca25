import { float32ToBfloat16 } from "./bf16.js";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  type TensorSlot,
  wireDtypeAt,
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

/** Room for a whole space in wire form on shared memory; pages that nobody writes to take no memory. */
export function sharedWireSpace(layout: ParameterLayout): Uint8Array<SharedArrayBuffer> {
  const numBytes = wireSizeBytes(layout);
  return new Uint8Array(new SharedArrayBuffer(startBytes + numBytes), startBytes, numBytes);
}

/**
 * A whole space in wire form on shared memory, from float32 values; bfloat16 rounds to nearest even.
 *
 * @param load fills the values of a range of the space; what it leaves is 0
 */
export async function readWireSpace(
  layout: ParameterLayout,
  load: (range: ElementRange, into: Float32Array) => Promise<void>,
): Promise<Uint8Array<SharedArrayBuffer>> {
  const wire = sharedWireSpace(layout);
  for (let start = 0; start < layout.numElements; ) {
    const region = start < layout.vectorStart ? layout.vectorStart : layout.numElements;
    const end = Math.min(start + chunkElements, region);
    const values = new Float32Array(end - start);
    await load({ start, end }, values);
    const at = wire.byteOffset + wireOffsetBytes(layout, start);
    if (wireDtypeAt(layout, start) === "float32") {
      new Float32Array(wire.buffer, at, values.length).set(values);
    } else {
      float32ToBfloat16(values, new Uint16Array(wire.buffer, at, values.length));
    }
    start = end;
  }
  return wire;
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
