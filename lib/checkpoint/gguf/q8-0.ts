import { conversionChunkBytes } from "#lib/checkpoint/limits";
import { float32ToFloat16 } from "#lib/core/bf16";
import { LockstepError } from "#lib/core/errors/index";

const blockElements = 32;
const blockBytes = 34;
const { abs, floor, fround, sign } = Math;
/** A scale that rounds to infinity in float16. */
const firstInfinite = 65_520;

/**
 * Blocks of 32 elements in eight bits, after ggml's `quantize_row_q8_0_ref`, to the bit: d = max|x| / 127 in float32, q =
 * round(x * (1 / d)), halves away from zero; d is kept in float16.
 *
 * @throws E_TENSOR_RANGE for what no block holds
 */
export function* encodeQ8_0(values: Float32Array, tensor: string): Generator<Uint8Array> {
  const chunkBlocks = floor(conversionChunkBytes / blockBytes);
  const numBlocks = values.length / blockElements;
  const bytes = new Uint8Array(Math.min(chunkBlocks, numBlocks) * blockBytes);
  const scale = new Float32Array(1);
  const scaleBits = new Uint16Array(1);
  for (let first = 0; first < numBlocks; first += chunkBlocks) {
    const count = Math.min(chunkBlocks, numBlocks - first);
    for (let block = 0; block < count; block++) {
      const start = (first + block) * blockElements;
      let largest = 0;
      for (let i = start; i < start + blockElements; i++) {
        const size = abs(values[i] as number);
        // NaN is more than any size, and stays.
        if (size > largest || Number.isNaN(size)) largest = size;
      }
      scale[0] = largest / 127;
      const d = scale[0] as number;
      if (!(d < firstInfinite)) {
        throw new LockstepError("E_TENSOR_RANGE", { tensor, value: largest, dtype: "q8_0" });
      }
      const inverse = d === 0 ? 0 : fround(1 / d);
      float32ToFloat16(scale, scaleBits);
      const at = block * blockBytes;
      bytes[at] = (scaleBits[0] as number) & 0xff;
      bytes[at + 1] = (scaleBits[0] as number) >>> 8;
      for (let i = 0; i < blockElements; i++) {
        const scaled = fround((values[start + i] as number) * inverse);
        bytes[at + 2 + i] = sign(scaled) * floor(abs(scaled) + 0.5);
      }
    }
    yield bytes.subarray(0, count * blockBytes);
  }
}
