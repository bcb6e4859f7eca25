import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ControlClient } from "#lib/wire/control-client";

const maxDescriptors = 160;

const ends: (() => unknown)[] = [];
after(() => {
  for (const end of ends.reverse()) end();
});

async function limitedServer(): Promise<{
  readonly process: ChildProcess;
  readonly port: number;
  readonly tell: (order: object) => Promise<string>;
}> {
  const script = fileURLToPath(new URL("../support/descriptor-server.js", import.meta.url));
  const command = `ulimit -n ${maxDescriptors}; exec "$0" "$1"`;
  const child = spawn("bash", ["-c", command, process.execPath, script], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  ends.push(() => child.kill("SIGKILL"));
  const answer = async (): Promise<string> => {
    const [told] = await once(child, "message");
    return (told as { answer: string }).answer;
  };
  const port = Number(await answer());
  return {
    process: child,
    port,
    tell: async (order) => {
      const answered = answer();
      child.send(order);
      return answered;
    },
  };
}

/** A worker's connection, which stays after a call that was answered. */
async function member(port: number): Promise<ControlClient> {
  const client = new ControlClient({ address: `127.0.0.1:${port}`, security: {} });
  ends.push(() => client.close());
  await client.leave({ workerId: "w", reason: "to be known" });
  return client;
}

test("connections leave the descriptors that saving needs", async () => {
  const server = await limitedServer();
  const workers = [await member(server.port)];
  const strangers: Socket[] = [];
  for (let i = 0; i < 300; i++) {
    // Strangers make room for one another, members do not: both kinds come.
    if (i % 3 === 0 && workers.length < maxDescriptors) {
      const one = new ControlClient({ address: `127.0.0.1:${server.port}`, security: {} });
      workers.push(one);
      ends.push(() => one.close());
      await one.leave({ workerId: "w", reason: "to be known" }).catch(() => {});
    }
    const stranger = connect({ port: server.port, host: "127.0.0.1" });
    stranger.on("error", () => {});
    strangers.push(stranger);
    await once(stranger, "connect");
  }
  // What it closes is gone once it has come to it.
  const numOpen = (): number => readdirSync(`/proc/${server.process.pid}/fd`).length;
  const numAllowed = (maxDescriptors * 3) / 4 + 1;
  for (let i = 0; i < 100 && numOpen() > numAllowed; i++) await delay(100);
  assert.ok(numOpen() <= numAllowed, `${numOpen()} descriptors are open`);
  const directory = mkdtempSync(join(tmpdir(), "lockstep-descriptors-"));
  ends.push(() => rmSync(directory, { recursive: true }));
  assert.equal(await server.tell({ save: directory }), "saved");
  assert.equal(server.process.exitCode, null);
  // The first to come is served as before.
  await workers[0]?.leave({ workerId: "w", reason: "again" });
  for (const stranger of strangers) stranger.destroy();
});

test("a process without descriptors neither ends nor spins when somebody connects", async () => {
  const server = await limitedServer();
  assert.equal(await server.tell({ exhaust: true }), "EMFILE");
  const sockets = Array.from({ length: 5 }, () =>
    connect({ port: server.port, host: "127.0.0.1" }).on("error", () => {}),
  );
  ends.push(() => sockets.forEach((socket) => socket.destroy()));
  const before = cpuSeconds(server.process.pid ?? 0);
  // As long as it may take a spinning process to show.
  await delay(2_000);
  const spent = cpuSeconds(server.process.pid ?? 0) - before;
  assert.ok(spent < 1, `${spent} s of processor time within 2 s`);
  assert.equal(server.process.exitCode, null);
  assert.equal(await server.tell({ release: true }), "released");
  await member(server.port);
});

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
