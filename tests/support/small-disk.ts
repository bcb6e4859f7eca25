import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A file system of its own, which can be filled and made read-only. */
export interface SmallDisk {
  readonly directory: string;
  /** Leaves this many bytes free. */
  readonly fill: (freeBytes: number) => void;
  /** Leaves nothing free. */
  readonly fillUp: () => void;
  /** What these took is free again. */
  readonly free: () => void;
  /** As a file system becomes that meets a damaged block; files that are open stay writable. */
  readonly setWritable: (isWritable: boolean) => void;
  readonly remove: () => void;
}

/** Mounts one, or says why it cannot: that takes root. */
export function mountSmallDisk(directory: string, sizeBytes: number): SmallDisk | string {
  const command = (name: string, ...args: string[]): void =>
    void execFileSync(name, args, { stdio: "pipe" });
  mkdirSync(directory, { recursive: true });
  try {
    command("mount", "-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", directory);
  } catch (error) {
    return `no small file system can be mounted here: ${(error as Error).message.split("\n")[1]}`;
  }
  const filler = join(directory, "filler");
  return {
    directory,
    fill: (freeBytes) => writeFileSync(filler, Buffer.alloc(sizeBytes - freeBytes)),
    fillUp: () => {
      const block = Buffer.alloc(4096);
      try {
        for (;;) appendFileSync(filler, block);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      }
    },
    free: () => rmSync(filler),
    setWritable: (isWritable) => {
      // A second mount of the same place: the first cannot become read-only while a log is open.
      if (isWritable) return command("umount", directory);
      command("mount", "--bind", directory, directory);
      command("mount", "-o", "remount,bind,ro", directory);
    },
    // A process that was killed a moment ago may still hold a file.
    remove: () => command("umount", "--lazy", directory),
  };
}
