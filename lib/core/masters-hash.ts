import { createHash } from "node:crypto";
import type { ParameterLayout } from "./parameter-layout.js";
import type { KeptArray, KeptPiece, ShardPiece } from "./shard-arrays.js";

/** Master weights of a contiguous piece of the flat parameter space. */
type MasterPiece = Pick<ShardPiece, "range" | "masters">;

/**
 * SHA-256 of the fp32 little-endian bytes of every tensor in layout order, padding left out: equal
 * for equal weights, however the space is cut into shards.
 *
 * @param pieces in ascending order, covering the whole space; a tensor may span several
 */
export function mastersSha256(layout: ParameterLayout, pieces: readonly MasterPiece[]): string {
  const hash = createHash("sha256");
  for (const part of partsInOrder(layout, pieces)) hash.update(bytesOf(part as Float32Array));
  return hash.digest("hex");
}

/** The same of pieces that may be elsewhere, of which a part at a time is in memory. */
export async function keptMastersSha256(
  layout: ParameterLayout,
  pieces: readonly KeptMasters[],
): Promise<string> {
  const hash = createHash("sha256");
  for (const part of partsInOrder(layout, pieces)) {
    if (part instanceof Float32Array) hash.update(bytesOf(part));
    else for await (const piece of part.pieces()) hash.update(bytesOf(piece));
  }
  return hash.digest("hex");
}

type KeptMasters = Pick<KeptPiece, "range" | "masters">;

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

function* partsInOrder(
  layout: ParameterLayout,
  pieces: readonly KeptMasters[],
): Generator<KeptArray> {
  for (const tensor of layout.tensors) {
    let element = tensor.offset;
    const end = tensor.offset + tensor.size;
    for (const { range, masters } of pieces) {
      const { start } = range;
      const pieceEnd = Math.min(end, start + masters.length);
      if (element < start || element >= pieceEnd) continue;
      yield masters.subarray(element - start, pieceEnd - start);
      element = pieceEnd;
    }
    if (element !== end) {
      throw new RangeError(`No piece holds element ${element} of tensor ${tensor.name}`);
    }
  }
}
