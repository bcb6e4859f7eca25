import { execFile } from "node:child_process";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A file system of its own for a run's output, which can be full. */
export class SmallDisk {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** @param directory an empty one. @throws where this user may not mount */
  static async mount(directory: string, sizeBytes: number): Promise<SmallDisk> {
    await run("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", directory]);
    return new SmallDisk(directory);
  }

  /** Leaves no byte free. */
  async fill(): Promise<void> {
    const file = await open(this.#filler, "a");
    try {
      for (let piece = Buffer.alloc(1 << 20, 1); piece.length > 0; ) {
        const { bytesWritten } = await file.write(piece).catch(() => ({ bytesWritten: 0 }));
        if (bytesWritten < piece.length) piece = piece.subarray(0, piece.length >> 1);
      }
    } finally {
      await file.close();
    }
  }

  async free(): Promise<void> {
    await rm(this.#filler, { force: true });
  }

  async unmount(): Promise<void> {
    await run("umount", ["--lazy", this.directory]);
  }

  get #filler(): string {
    return join(this.directory, ".filler");
  }
}
