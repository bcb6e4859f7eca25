import { createHash } from "node:crypto";
import type { ModelWeights } from "./model-weights.js";

/** Bytes that are read and hashed at a time. */
const chunkBytes = 4 * 1024 * 1024;

/**
 * SHA-256 of weights as they are stored: names, types, shapes and bytes, by sorted name. How they are
 * divided into files, and where those are, does not enter. Takes about a second a gigabyte.
 *
 * @param tensors which ones; what a model's files do not have, a classifier's new head, is left out
 */
export async function weightsSha256(
  weights: Pick<ModelWeights, "has" | "info" | "readBytes">,
  tensors: readonly { readonly name: string }[],
): Promise<string> {
  const hash = createHash("sha256");
  const buffer = new Uint8Array(chunkBytes);
  const names = tensors.map(({ name }) => name).filter((name) => weights.has(name));
  for (const name of names.sort()) {
    const { dtype, shape, sizeBytes } = weights.info(name);
    hash.update(JSON.stringify([name, dtype, shape]));
    for (let done = 0; done < sizeBytes; done += chunkBytes) {
      const part = buffer.subarray(0, Math.min(chunkBytes, sizeBytes - done));
      await weights.readBytes(name, part, done);
      hash.update(part);
    }
  }
  return hash.digest("hex");
}
