import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

// Ports for programs that are given one. They lie below those from which a system serves port 0 and outgoing
// connections: one of those that was free a moment ago may be somebody's before the program listens.

const firstPort = 10_000;
const endPort = 30_000;
const claims = join(tmpdir(), `lockstep-test-ports-${userInfo().uid}`);
const claimed = new Set<number>();

process.once("exit", () => {
  for (const port of claimed) rmSync(claimFile(port), { force: true });
});

/**
 * A port of loopback that is free, as the next `count - 1` ones are; of a coordinator they are its shards'. Until
 * this process ends no other test gets them.
 */
export async function freePorts(count: number): Promise<number> {
  mkdirSync(claims, { recursive: true });
  for (;;) {
    const first = randomInt(firstPort, endPort - count);
    const ports = Array.from({ length: count }, (_, index) => first + index);
    if (!ports.every(claim)) continue;
    if (await areFree(ports)) return first;
  }
}

function claim(port: number): boolean {
  if (claimed.has(port)) return false;
  if (isHeld(port)) return false;
  try {
    writeFileSync(claimFile(port), `${process.pid}`, { flag: "wx" });
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
  claimed.add(port);
  return true;
}

/** Whether a process that lives has claimed it; the claim of one that was killed is removed. */
function isHeld(port: number): boolean {
  try {
    process.kill(Number(readFileSync(claimFile(port), "utf8")), 0);
    return true;
  } catch (error) {
    if (codeOf(error) === "ESRCH") rmSync(claimFile(port), { force: true });
    return codeOf(error) === "EPERM";
  }
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

const claimFile = (port: number): string => join(claims, `${port}`);

async function areFree(ports: readonly number[]): Promise<boolean> {
  const servers: Server[] = [];
  try {
    for (const port of ports) {
      const server = createServer();
      servers.push(server);
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    }
    return true;
  } catch {
    // One of them is taken.
    return false;
  } finally {
    await Promise.all(
      servers.map((server) => new Promise((resolve) => server.close(() => resolve(undefined)))),
    );
  }
}
