import type { FloatDtype } from "#lib/core/dtype";
import { conversionChunkBytes } from "#lib/checkpoint/limits";
import { encodeElements } from "#lib/checkpoint/elements";
import type { TensorMapping } from "./llama.js";
import type { GgufFile } from "./reader.js";
import { type TensorType, tensorTypes } from "./tensor-types.js";

/**
 * The bytes of one tensor in `dtype`, a few rows at a time; each piece is valid until the next is
 * asked for. Rows of Q and K are moved from GGUF's rotary order to transformers' (see
 * `halfSplitRow`), which needs whole heads in a piece.
 */
export async function* decodeTensor(
  gguf: GgufFile,
  mapping: TensorMapping,
  dtype: FloatDtype,
): AsyncGenerator<Uint8Array> {
  const { source, rotaryHeadDim } = mapping;
  const type = tensorTypes[source.type] as TensorType;
  // A vector with rotary order (a bias) has rows of one element.
  const rowElements =
    source.shape.length === 1 && rotaryHeadDim !== undefined ? 1 : (source.shape.at(-1) as number);
  const rowBytes = (rowElements / type.blockElements) * type.blockBytes;
  const numRows = source.sizeBytes / rowBytes;
  const unitRows = rotaryHeadDim ?? 1;
  const unitsPerPiece = Math.max(1, Math.floor(conversionChunkBytes / 4 / rowElements / unitRows));
  const pieceRows = Math.min(numRows, unitsPerPiece * unitRows);
  const bytes = new Uint8Array(pieceRows * rowBytes);
  const decoded = new Float32Array(pieceRows * rowElements);
  const reordered = rotaryHeadDim === undefined ? decoded : new Float32Array(decoded.length);
  for (let row = 0; row < numRows; row += pieceRows) {
    const rows = Math.min(pieceRows, numRows - row);
    const part = bytes.subarray(0, rows * rowBytes);
    await gguf.readTensorBytes(source, row * rowBytes, part);
    type.decode(part, decoded);
    if (rotaryHeadDim !== undefined) {
      for (let to = 0; to < rows; to++) {
        const from = halfSplitRow(to, rotaryHeadDim) * rowElements;
        reordered.set(decoded.subarray(from, from + rowElements), to * rowElements);
      }
    }
    yield* encodeElements(reordered.subarray(0, rows * rowElements), dtype, mapping.name);
  }
}

/**
 * The GGUF row that holds row `row` of transformers' Q or K projection.
 *
 * llama.cpp rotates neighbours (2i, 2i+1) of a head, transformers rotates (i, i + headDim/2); so the
 * converter to GGUF interleaves the two halves of each head's rows, and this undoes it.
 */
export function halfSplitRow(row: number, headDim: number): number {
  const inHead = row % headDim;
  const half = headDim / 2;
  return row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
}
