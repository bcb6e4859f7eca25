import type { FileHandle } from "node:fs/promises";

/** What one call of the system is given at most, bytes. */
const callBytes = 1024 * 1024 * 1024;

/** Writes all of `bytes` at a position of a file. @returns the position behind them */
export async function writeAll(
  handle: FileHandle,
  bytes: Uint8Array,
  position: number,
): Promise<number> {
  let done = 0;
  while (done < bytes.byteLength) {
    const count = Math.min(bytes.byteLength - done, callBytes);
    const { bytesWritten } = await handle.write(bytes, done, count, position + done);
    done += bytesWritten;
  }
  return position + done;
}
