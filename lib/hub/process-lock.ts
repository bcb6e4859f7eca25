import { createHash } from "node:crypto";
import { connect, createServer, type Socket } from "node:net";

/**
 * One process at a time, by a name. The lock is a socket in Linux' abstract namespace, which the kernel
 * drops with the process, however that ends; who waits is connected to it and hears so at once.
 *
 * @param onWait called once where another process holds it
 * @returns gives it up
 */
export async function lockAcrossProcesses(
  name: string,
  onWait: () => void = () => {},
): Promise<() => Promise<void>> {
  const path = `\0lockstep-hub-${createHash("sha256").update(name).digest("hex")}`;
  let hasTold = false;
  for (;;) {
    const release = await tryLock(path);
    if (release !== undefined) return release;
    if (!hasTold) onWait();
    hasTold = true;
    await untilReleased(path);
  }
}

async function tryLock(path: string): Promise<(() => Promise<void>) | undefined> {
  const waiting = new Set<Socket>();
  const server = createServer((socket) => {
    waiting.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => waiting.delete(socket));
    socket.unref();
  });
  const isMine = await new Promise<boolean>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" ? resolve(false) : reject(error),
    );
    server.listen({ path }, () => resolve(true));
  });
  if (!isMine) return undefined;
  // The lock alone must not keep the process alive.
  server.unref();
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of waiting) socket.destroy();
    });
}

function untilReleased(path: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.on("error", () => {});
    socket.on("close", () => resolve());
    socket.resume();
  });
}
