import type { Fields } from "./message-fields.js";

/** The bytes of an array, without a copy. */
export const toBytes = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Buffer =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);

/** Reads numbers of a field of bytes, into fresh memory: a message's bytes may begin anywhere. */
export function numbersOf<T extends Float32Array | Float64Array>(
  fields: Fields,
  field: string,
  make: new (buffer: ArrayBuffer) => T,
  bytesOfOne: number,
): T {
  const bytes = fields.bytes(field);
  if (bytes.length % bytesOfOne !== 0) {
    throw fields.invalid(field, `has a length that is no multiple of ${bytesOfOne}`);
  }
  return new make(Uint8Array.from(bytes).buffer);
}
