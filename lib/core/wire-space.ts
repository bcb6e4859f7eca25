import { float32ToBfloat16 } from "./bf16.js";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  wireDtypeAt,
  wireOffsetBytes,
  wireSizeBytes,
} from "./parameter-layout.js";

/** Elements converted at a time: 16 MiB of float32. */
const chunkElements = 64 * blockElements;

/**
 * A whole space in wire form on shared memory, from float32 values; bfloat16 rounds to nearest even.
 *
 * @param load fills the values of a range of the space; what it leaves is 0
 */
export async function readWireSpace(
  layout: ParameterLayout,
  load: (range: ElementRange, into: Float32Array) => Promise<void>,
): Promise<Uint8Array<SharedArrayBuffer>> {
  const wire = new Uint8Array(new SharedArrayBuffer(wireSizeBytes(layout)));
  for (let start = 0; start < layout.numElements; ) {
    const region = start < layout.vectorStart ? layout.vectorStart : layout.numElements;
    const end = Math.min(start + chunkElements, region);
    const values = new Float32Array(end - start);
    await load({ start, end }, values);
    const at = wireOffsetBytes(layout, start);
    if (wireDtypeAt(layout, start) === "float32") {
      new Float32Array(wire.buffer, at, values.length).set(values);
    } else {
      float32ToBfloat16(values, new Uint16Array(wire.buffer, at, values.length));
    }
    start = end;
  }
  return wire;
}
