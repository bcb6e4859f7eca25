import { createHash } from "node:crypto";

/** OpenSSL takes less than 2 GiB at a time. */
const pieceBytes = 64 * 1024 * 1024;

/** SHA-256 of bytes, however many. */
export function bytesSha256({ buffer, byteOffset, byteLength }: Uint8Array): string {
  const hash = createHash("sha256");
  for (let at = 0; at < byteLength; at += pieceBytes) {
    // On shared memory, of which OpenSSL takes no view.
    hash.update(Buffer.from(buffer, byteOffset + at, Math.min(pieceBytes, byteLength - at)));
  }
  return hash.digest("hex");
}
