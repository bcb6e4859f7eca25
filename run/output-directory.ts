import { createHash } from "node:crypto";
import { access, constants, mkdir, realpath, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, resolve } from "node:path";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { LockstepError } from "#lib/core/errors/index";

/**
 * Makes `output_dir` where it is missing and keeps it for this process, before anything costs time.
 * The claim is a socket in Linux' abstract namespace: the kernel drops it with the process, however
 * that ends, so a killed run leaves nothing that would stop the next one.
 *
 * @returns gives the directory up
 * @throws E_OUTPUT_DIR_IN_USE; E_CHECKPOINT_WRITE and E_DISK_FULL where it cannot be made or written
 */
export async function claimOutputDirectory(directory: string): Promise<() => Promise<void>> {
  let path: string;
  try {
    await makeDirectory(directory);
    path = await realpath(directory);
    await access(path, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw explainWriteError(error, directory);
  }
  const digest = createHash("sha256").update(path).digest("hex");
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        error.code === "EADDRINUSE"
          ? new LockstepError("E_OUTPUT_DIR_IN_USE", { directory })
          : error,
      ),
    );
    server.listen({ path: `\0lockstep-output-${digest}` }, resolve);
  });
  // The claim alone must not keep the process alive.
  server.unref();
  return async () => new Promise((resolve) => server.close(() => resolve()));
}

/**
 * Makes a directory and those above it. Node's own recursive mkdir never ends where a file system has a
 * parent and makes nothing in it, as /proc.
 */
async function makeDirectory(directory: string): Promise<void> {
  const make = async (path: string): Promise<string | undefined> => {
    try {
      await mkdir(path);
      return undefined;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST" && (await stat(path)).isDirectory()) return undefined;
      if (code === "ENOENT") return code;
      throw error;
    }
  };
  const path = resolve(directory);
  if ((await make(path)) === undefined) return;
  if (dirname(path) !== path) await makeDirectory(dirname(path));
  await mkdir(path);
}
