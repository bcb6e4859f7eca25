import assert from "node:assert/strict";
import os from "node:os";
import { test } from "node:test";
import { hostPort, splitAddress } from "#lib/core/address";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { ControlClient } from "#lib/wire/control-client";
import type { ReportFailureRequest } from "#lib/wire/control-messages";
import { registerControlService } from "#lib/wire/control-server";
import { GrpcServer } from "#lib/wire/grpc-server";
import { addressesElsewhere } from "#run/worker-addresses";
import { sequentialOracle, testJob, type TestWorker } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import {
  limit,
  startCoordinator,
  type StartedCoordinator,
} from "#tests/support/started-coordinator";
import { apart } from "#tests/support/output-owner";
import { freePorts } from "#tests/support/ports";
import { registered, testIdentity } from "#tests/support/scripted-member";
import { runWorker } from "#worker/worker";

// Who a worker is, and where it finds what it needs.

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

/** Lets two workers take part together, and asserts that nobody was lost. */
async function assertBothTakePart(
  { recorder, coordinator }: StartedCoordinator,
  start: (env: Readonly<Record<string, string>>, index: number) => TestWorker,
): Promise<void> {
  const run = coordinator.run();
  // Each waits in its first group of two steps. Whoever computes alone is the one that is let go, so its group counts.
  const env = { LOCKSTEP_TEST_STALL: "leased:0,leased:1" };
  const [one, other] = [start(env, 0), start(env, 1)] as const;
  const workers = [one, other];
  const bothLeased = async (at: number): Promise<unknown> =>
    recorder.until(() => {
      const leased = recorder.of("group.leased").filter(({ step }) => step === at);
      return new Set(leased.map(({ workerId }) => workerId)).size === 2;
    });
  const completed = async (at: number): Promise<unknown> =>
    recorder.until((event) => event.type === "group.completed" && event.step === at);
  await bothLeased(0);
  one.process.send("go");
  await completed(0);
  other.process.send("go");
  await bothLeased(1);
  other.process.send("go");
  await completed(1);
  one.process.send("go");
  const outcome = await run;
  for (const { exited } of workers) {
    const { code, stderr } = await exited;
    assert.equal(code, 0, stderr);
  }
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  assert.equal(recorder.of("worker.joined").length, 2);
  assert.deepEqual(recorder.of("worker.lost"), []);
  const computed = recorder.of("group.completed").map(({ workerId }) => workerId);
  assert.equal(new Set(computed).size, 2);
}

test("two containers with one host name and one process id both take part", limit, async (t) => {
  const prefix = apart(t, "pid");
  if (prefix === undefined) return;
  const parts = await startCoordinator(totalSteps);
  await assertBothTakePart(parts, (env) => spawnWorker(parts.address, env, prefix));
  const joined = parts.recorder.of("worker.joined");
  assert.deepEqual(
    joined.map(({ host, pid }) => ({ host, pid })),
    [0, 1].map(() => ({ host: os.hostname(), pid: 1 })),
  );
});

test("two workers of one name both take part", limit, async () => {
  const parts = await startCoordinator(totalSteps);
  await assertBothTakePart(parts, (env) =>
    spawnWorker(parts.address, { ...env, LOCKSTEP_TEST_NAME: "gpu" }),
  );
  const ids = parts.recorder.of("worker.joined").map(({ workerId }) => workerId);
  assert.deepEqual(ids, ["gpu", "gpu-2"]);
});

test(
  "the kind of a device that crashed before it computed anything is not the run's",
  limit,
  async () => {
    const { coordinator, address } = await startCoordinator(totalSteps);
    const run = coordinator.run();
    const first = spawnWorker(address, {
      ...{ LOCKSTEP_TEST_DEVICE_KIND: "A", LOCKSTEP_TEST_FAULT: "leased:0" },
    });
    await first.exited;
    coordinator.reportWorkerExit(first.incarnation, "killed");
    const second = spawnWorker(address, { LOCKSTEP_TEST_DEVICE_KIND: "B" });
    assert.equal((await run).mastersSha256, oracle.mastersSha256);
    assert.equal((await second.exited).code, 0);
    assert.equal(coordinator.deviceKind, "B");
  },
);

test("the kind of a device whose bytes are with the shards is the run's", limit, async () => {
  const { coordinator, address } = await startCoordinator(totalSteps);
  const run = coordinator.run();
  const first = spawnWorker(address, {
    ...{ LOCKSTEP_TEST_DEVICE_KIND: "A", LOCKSTEP_TEST_FAULT: "pushed:0" },
  });
  await first.exited;
  coordinator.reportWorkerExit(first.incarnation, "killed");
  const second = spawnWorker(address, { LOCKSTEP_TEST_DEVICE_KIND: "B" });
  const { code, stderr } = await second.exited;
  assert.equal(code, 1);
  assert.match(stderr, /E_DEVICE_KIND_MISMATCH|has the device kind "B"/);
  const third = spawnWorker(address, { LOCKSTEP_TEST_DEVICE_KIND: "A" });
  assert.equal((await run).mastersSha256, oracle.mastersSha256);
  assert.equal((await third.exited).code, 0);
});

test("the exit of a process takes no worker of another machine with it", limit, async () => {
  const { recorder, coordinator, address } = await startCoordinator(totalSteps);
  const run = coordinator.run();
  const clients = [0, 1].map(() => new ControlClient({ address, security: {} }));
  const [own, other] = await Promise.all(
    clients.map(async (client) => {
      const identity = { ...testIdentity(), host: os.hostname(), pid: process.pid };
      return { ...(await registered(client, identity)), identity };
    }),
  );
  coordinator.reportWorkerExit(own?.identity.incarnation ?? "", "killed");
  assert.deepEqual(
    recorder.of("worker.lost").map(({ workerId }) => workerId),
    [own?.workerId],
  );
  await clients[1]?.leave({ workerId: other?.workerId ?? "", reason: "it is done" });
  for (const client of clients) client.close();
  const worker = spawnWorker(address);
  assert.equal((await run).mastersSha256, oracle.mastersSha256);
  assert.equal((await worker.exited).code, 0);
});

const hasIpv6 = Object.values(os.networkInterfaces()).some((all) =>
  all?.some(({ address }) => address === "::1"),
);

for (const listenHost of ["0.0.0.0", "::"]) {
  const skip = listenHost === "::" && !hasIpv6 ? "this machine has no ::1" : false;
  test(`workers call the shards of ${listenHost} as they called the coordinator`, {
    ...limit,
    skip,
  }, async () => {
    const parts = await startCoordinator(totalSteps, {
      ...{ listenHost, security: { insecure: true }, minWorkers: 2 },
    });
    const { port, address: own } = parts;
    assert.equal(splitAddress(own).host, listenHost === "::" ? "::1" : "127.0.0.1");
    const client = new ControlClient({ address: own, security: {} });
    const { workerId, shardAddresses } = await registered(client);
    await client.leave({ workerId, reason: "it has seen the addresses" });
    client.close();
    assert.equal(shardAddresses.length, 2);
    for (const address of shardAddresses) assert.match(address, /^:\d+$/);
    const listening = { listen: hostPort(listenHost, 0), advertise_host: null };
    const elsewhere = addressesElsewhere(listening, port).at(-1) ?? own;
    const run = parts.coordinator.run();
    const workers = [own, elsewhere].map((address) => spawnWorker(address));
    assert.equal((await run).mastersSha256, oracle.mastersSha256);
    for (const { exited } of workers) assert.equal((await exited).code, 0);
  });
}

test("advertise_host is where the shards are called", limit, async () => {
  const parts = await startCoordinator(totalSteps, { advertiseHost: "localhost" });
  const client = new ControlClient({ address: parts.address, security: {} });
  const { workerId, shardAddresses } = await registered(client);
  await client.leave({ workerId, reason: "it has seen the addresses" });
  client.close();
  for (const address of shardAddresses) assert.match(address, /^localhost:\d+$/);
  const run = parts.coordinator.run();
  const worker = spawnWorker(parts.address);
  assert.equal((await run).mastersSha256, oracle.mastersSha256);
  assert.equal((await worker.exited).code, 0);
});

for (const [what, shard, code, message] of [
  ["stands for all addresses", async () => "0.0.0.0:7001", "E_SHARD_ADDRESS", /"0.0.0.0:7001"/],
  ["has no port", async () => "coordinator", "E_SHARD_ADDRESS", /"coordinator"/],
  [
    "answers nobody",
    async () => `127.0.0.1:${await freePorts(1)}`,
    "E_SHARD_UNREACHABLE",
    /its reducer shard 127\.0\.0\.1:\d+ was not reachable for \d+ s: .*ECONNREFUSED/,
  ],
  [
    "has a name that nobody knows",
    async () => "lockstep.invalid:7001",
    "E_SHARD_UNREACHABLE",
    /its reducer shard lockstep\.invalid:7001 was not reachable/,
  ],
] as const) {
  test(`a worker ends with a clear error where a shard's address ${what}`, limit, async (t) => {
    const server = new GrpcServer({ security: {}, maxReceiveBytes: 1 << 20 });
    const address = await shard();
    let numRegistrations = 0;
    const failures: ReportFailureRequest[] = [];
    registerControlService(server, {
      register: async () => {
        numRegistrations += 1;
        return {
          ...{ workerId: "worker", jobJson: JSON.stringify(testJob), shardAddresses: [address] },
          ...{ heartbeatIntervalMs: 100, retryAfterMs: 0, waitReason: "" },
          ...{ runId: "run", epoch: 1, memberSecret: "secret" },
        };
      },
      admit: () => {},
      checkWeights: async () => ({ isIntact: true }),
      heartbeat: async () => ({ version: 0 }),
      nextTask: async () => assert.fail("it asks for work"),
      completeTask: async () => assert.fail("it has a result"),
      reportFailure: async (failure) => void failures.push(failure),
      leave: async () => {},
    });
    const port = await server.listen("127.0.0.1", 0);
    t.after(() => server.close(0));
    const worker = runWorker({
      coordinatorAddress: hostPort("127.0.0.1", port),
      reconnectTimeoutMs: 500,
    });
    await assert.rejects(worker, (error) => {
      assert.ok(isLockstepError(error));
      assert.equal(error.code, code);
      assert.match(error.message, message);
      return true;
    });
    assert.equal(numRegistrations, 1);
    assert.deepEqual(
      failures.map((failure) => failure.code),
      [code],
      "the coordinator is told",
    );
  });
}

test(
  "whoever waits for a shard hears that the coordinator came back with others",
  limit,
  async (t) => {
    const server = new GrpcServer({ security: {}, maxReceiveBytes: 1 << 20 });
    const port = await freePorts(1);
    let numRegistrations = 0;
    const unknown = (worker: string): never => {
      throw new LockstepError("E_UNKNOWN_WORKER", { worker });
    };
    registerControlService(server, {
      register: async () => {
        numRegistrations += 1;
        if (numRegistrations > 1) throw new LockstepError("E_RUN_OVER", { directory: "run" });
        return {
          ...{ workerId: "worker", jobJson: JSON.stringify(testJob), shardAddresses: [`:${port}`] },
          ...{ heartbeatIntervalMs: 60_000, retryAfterMs: 0, waitReason: "" },
          ...{ runId: "run", epoch: 1, memberSecret: "secret" },
        };
      },
      admit: (_, worker) => unknown(worker),
      checkWeights: async () => ({ isIntact: true }),
      heartbeat: async () => ({ version: 0 }),
      nextTask: async () => assert.fail("it asks for work"),
      completeTask: async () => assert.fail("it has a result"),
      reportFailure: async () => assert.fail("it reports a failure"),
      leave: async () => {},
    });
    const address = hostPort("127.0.0.1", await server.listen("127.0.0.1", 0));
    t.after(() => server.close(0));
    // Longer than the test may take.
    const { outcome } = await runWorker({
      coordinatorAddress: address,
      reconnectTimeoutMs: 3_600_000,
    });
    assert.equal(outcome, "finished");
    assert.equal(numRegistrations, 2);
  },
);
