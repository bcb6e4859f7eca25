import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { splitAddress } from "#lib/core/address";
import { packageRoot } from "#lib/core/paths";
import { ControlClient } from "#lib/wire/control-client";
import { protocolVersion } from "#lib/wire/control-messages";
import { loadWireSecurity, type WireSecurity } from "#lib/wire/security";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { type Flood, type FloodOptions, flood, unfinishedCall } from "#tests/support/flood";

/** A coordinator process that is flooded, while a worker holds leases and sends nothing but heartbeats. */
const maxMoreBytes = 50e6;
const maxCpuSeconds = 10;
const totalSteps = 4;
const messageBytes = 31 * 1024 * 1024;

const ends: (() => unknown)[] = [];
after(async () => {
  for (const end of ends.reverse()) await end();
});

interface Flooded {
  readonly ports: readonly number[];
  /** Bytes of memory and seconds of processor time that the process took more. */
  readonly cost: () => { readonly moreBytes: number; readonly cpuSeconds: number };
  /** Lets the worker go on. @returns SHA-256 of the end, and what happened meanwhile */
  readonly finish: () => Promise<{ readonly sha256: string; readonly events: readonly string[] }>;
}

const field = (pid: number, name: string): number =>
  1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status(pid))?.[1]);
const status = (pid: number): string => readFileSync(`/proc/${pid}/status`, "utf8");

/** Of the process in user and system mode, in ticks of 10 ms. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function heldRun(security: WireSecurity): Promise<Flooded> {
  // A flood lasts as long as this machine takes for it: nothing honest may be late meanwhile.
  const patience = { heartbeatTimeoutMs: 60_000, leaseTimeoutMs: 600_000 };
  const coordinator = fork(new URL("../support/cluster-coordinator.js", import.meta.url), {
    env: {
      ...process.env,
      LOCKSTEP_TEST_OPTIONS: JSON.stringify({ security, ...patience }),
      LOCKSTEP_TEST_STEPS: String(totalSteps),
    },
  });
  ends.push(() => coordinator.kill("SIGKILL"));
  const events: string[] = [];
  coordinator.on("message", ({ type }: { type?: string }) => {
    if (type !== undefined) events.push(type);
  });
  const controlAddress = await told(coordinator, "controlAddress");
  const end = told(coordinator, "mastersSha256");
  const worker = spawnWorker(controlAddress, {
    LOCKSTEP_TEST_SECURITY: JSON.stringify(security),
    LOCKSTEP_TEST_STALL: "computed:2",
  });
  ends.push(() => worker.process.kill("SIGKILL"));
  await new Promise<void>((resolve) => {
    worker.process.on("message", ({ phase, step }: { phase?: string; step?: number }) => {
      if (phase === "computed" && step === 2) resolve();
    });
  });
  const shardPorts = await shardPortsOf(controlAddress, security);
  const { pid = 0 } = coordinator;
  // The peak is counted from here.
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  const before = { bytes: field(pid, "VmRSS"), cpu: cpuSeconds(pid) };
  const numBefore = events.length;
  return {
    ports: [splitAddress(controlAddress).port, ...shardPorts],
    cost: () => ({
      moreBytes: field(pid, "VmHWM") - before.bytes,
      cpuSeconds: cpuSeconds(pid) - before.cpu,
    }),
    finish: async () => {
      worker.process.send("go");
      return { sha256: await end, events: events.slice(numBefore) };
    },
  };
}

const told = async (process: ChildProcess, key: string): Promise<string> =>
  new Promise((resolve) => {
    const listen = (fact: Readonly<Record<string, string>>): void => {
      const found = fact[key];
      if (found === undefined) return;
      process.off("message", listen);
      resolve(found);
    };
    process.on("message", listen);
  });

/** As a worker learns them. */
async function shardPortsOf(address: string, security: WireSecurity): Promise<number[]> {
  const control = new ControlClient({ address, security });
  const reply = await control.register({
    ...{ protocolVersion, name: "visitor", host: "h", pid: 1, deviceKind: "fake" },
    ...{ deviceType: "cpu", advisesBf16: true, bf16Slowdown: 0, advisesFp16: false },
    fp16Slowdown: 0,
    incarnation: randomUUID(),
  });
  const { workerId, shardAddresses, runId, epoch, memberSecret: secret } = reply;
  control.usePass({ runId, epoch, workerId, secret });
  await control.leave({ workerId, reason: "that was all" });
  control.close();
  return shardAddresses.map((shard) => splitAddress(shard).port);
}

async function assertHolds(
  security: WireSecurity,
  floods: readonly Omit<FloodOptions, "ports">[],
): Promise<void> {
  const run = await heldRun(security);
  const held: Flood[] = [];
  for (const options of floods) held.push(await flood({ ...options, ports: run.ports }));
  const { moreBytes, cpuSeconds } = run.cost();
  const figures = `${(moreBytes / 1e6).toFixed(1)} MB more, ${cpuSeconds.toFixed(2)} s of processor time`;
  assert.ok(moreBytes < maxMoreBytes, figures);
  assert.ok(cpuSeconds < maxCpuSeconds, figures);
  // The worker's connections were not among those that were closed.
  const { sha256, events } = await run.finish();
  for (const { end } of held) end();
  assert.equal(sha256, (await sequentialOracle(totalSteps)).mastersSha256);
  for (const type of ["worker.lost", "group.requeued"]) assert.ok(!events.includes(type), type);
  console.log(figures);
}

const registerCall = {
  path: "/lockstep.v1.Control/Register",
  announcedBytes: messageBytes,
};

const certificates = join(packageRoot, "tests/fixtures/tls");
const load = async (holder: string): Promise<WireSecurity> =>
  loadWireSecurity(
    {
      tlsCaFile: join(certificates, "ours-ca.pem"),
      tlsCertFile: join(certificates, `${holder}.pem`),
      tlsKeyFile: join(certificates, `${holder}.key`),
      tlsServerName: "lockstep",
    },
    () => {},
  );

test("10,000 connections and messages without end, without a token, cost little and end nothing", async () => {
  const bytes = unfinishedCall({ ...registerCall, sentBytes: 65_536, numStreams: 4 });
  await assertHolds({ joinToken: "secret" }, [{ bytes, numConnections: 10_000 }]);
});

test("so do handshakes without a certificate, and what is none", async () => {
  const bytes = unfinishedCall({ ...registerCall, sentBytes: 65_536 });
  const tls = { rejectUnauthorized: false, ALPNProtocols: ["h2"] };
  await assertHolds({ ...(await load("ours")), joinToken: "secret" }, [
    { bytes, numConnections: 9_000 },
    { bytes, numConnections: 1_000, tls, numOpening: 300 },
  ]);
});

test("so do 10,000 where there is no token", async () => {
  const bytes = unfinishedCall({ ...registerCall, sentBytes: 65_536, numStreams: 4 });
  await assertHolds({}, [{ bytes, numConnections: 10_000 }]);
});
