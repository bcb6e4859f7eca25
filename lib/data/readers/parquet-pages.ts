import { compressors } from "hyparquet-compressors";

/**
 * Largest page, decompressed: writers make them of 1 MiB, and whole row groups of 128 MiB. It is also the largest
 * window that zstd itself accepts.
 */
export const maxPageBytes = 128 * 2 ** 20;

type Decompress = (input: Uint8Array, outputLength: number) => Uint8Array;

/** The decompressors, each for pages that say a sensible size before memory is taken for it. @throws Error */
export const pageDecompressors: Readonly<Record<string, Decompress>> = Object.fromEntries(
  Object.entries(compressors as Readonly<Record<string, Decompress>>).map(([codec, decompress]) => [
    codec,
    (input: Uint8Array, outputLength: number): Uint8Array => {
      refuseLarge("a page", outputLength);
      if (codec === "ZSTD")
        checkZstdFrames(Buffer.from(input.buffer, input.byteOffset, input.length));
      return decompress(input, outputLength);
    },
  ]),
);

function refuseLarge(what: string, numBytes: number): void {
  if (numBytes >= 0 && numBytes <= maxPageBytes) return;
  throw new Error(`${what} claims ${numBytes} bytes; at most ${maxPageBytes} are read`);
}

const zstdMagic = 0xfd2fb528;
const skippableMagic = 0x184d2a50;

/** Each frame names the memory that it wants. A frame that ends early is left to the decompressor. */
function checkZstdFrames(input: Buffer): void {
  let at = 0;
  while (at + 8 < input.length) {
    const magic = input.readUInt32LE(at);
    if (((magic ^ skippableMagic) & ~0xf) === 0) {
      at += 8 + input.readUInt32LE(at + 4);
      continue;
    }
    if (magic !== zstdMagic) return;
    at = endOfFrame(input, at);
  }
}

/** RFC 8878, section 3.1.1: a header, then blocks, the last of which says that it is. */
function endOfFrame(input: Buffer, start: number): number {
  const flags = input[start + 4] ?? 0;
  const isSingleSegment = (flags & 0x20) !== 0;
  const sizeCode = flags >> 6;
  const window = input[start + 5] ?? 0;
  let at = start + (isSingleSegment ? 5 : 6) + ([0, 1, 2, 4][flags & 3] ?? 0);
  const sizeBytes = sizeCode === 0 ? (isSingleSegment ? 1 : 0) : 1 << sizeCode;
  if (at + sizeBytes > input.length) return input.length;
  const low = sizeBytes === 0 ? 0 : input.readUIntLE(at, Math.min(sizeBytes, 6));
  // Beyond six bytes a size is beyond every limit anyway.
  const isBeyond = sizeBytes === 8 && input.readUInt16LE(at + 6) > 0;
  refuseLarge("a page", isBeyond ? Number.POSITIVE_INFINITY : low);
  if (!isSingleSegment) refuseLarge("a window", 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8));
  at += sizeBytes;
  for (let isLast = false; !isLast && at + 3 <= input.length; ) {
    const block = input.readUIntLE(at, 3);
    isLast = (block & 1) === 1;
    const isRepeated = ((block >> 1) & 3) === 1;
    at += 3 + (isRepeated ? 1 : block >> 3);
  }
  return at + ((flags & 4) === 0 ? 0 : 4);
}
