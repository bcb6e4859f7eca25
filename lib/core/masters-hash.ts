import { createHash } from "node:crypto";
import type { ParameterLayout } from "./parameter-layout.js";
import type { ShardPiece } from "./shard-arrays.js";

/** Master weights of a contiguous piece of the flat parameter space. */
export type MasterPiece = Pick<ShardPiece, "range" | "masters">;

/**
 * SHA-256 of the fp32 little-endian bytes of every tensor in layout order, padding left out: equal
 * for equal weights, however the space is cut into shards.
 *
 * @param pieces in ascending order, covering the whole space; a tensor may span several
 */
export function mastersSha256(layout: ParameterLayout, pieces: readonly MasterPiece[]): string {
  const hash = createHash("sha256");
  for (const tensor of layout.tensors) {
    let element = tensor.offset;
    const end = tensor.offset + tensor.size;
    for (const { range, masters } of pieces) {
      const { start } = range;
      const pieceEnd = Math.min(end, start + masters.length);
      if (element < start || element >= pieceEnd) continue;
      const part = masters.subarray(element - start, pieceEnd - start);
      hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
      element = pieceEnd;
    }
    if (element !== end) {
      throw new RangeError(`No piece holds element ${element} of tensor ${tensor.name}`);
    }
  }
  return hash.digest("hex");
}
