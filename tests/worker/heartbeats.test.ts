import assert from "node:assert/strict";
import { test } from "node:test";
import { hostPort } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { registerControlService } from "#lib/wire/control-server";
import { GrpcServer } from "#lib/wire/grpc-server";
import { CoordinatorLink } from "#worker/coordinator-link";

const limit = { timeout: 60_000 };

/** A coordinator whose heartbeats are answered by `heartbeat`. */
async function listening(heartbeat: () => Promise<{ readonly version: number }>) {
  const server = new GrpcServer({ security: {}, maxReceiveBytes: 1 << 20 });
  const unused = async (): Promise<never> => assert.fail("only heartbeats are expected");
  registerControlService(server, {
    register: async () => ({
      ...{ workerId: "worker", jobJson: "{}", shardAddresses: [], memberSecret: "secret" },
      ...{ heartbeatIntervalMs: 20, retryAfterMs: 0, waitReason: "", runId: "run", epoch: 1 },
    }),
    admit: () => {},
    heartbeat,
    checkWeights: unused,
    nextTask: unused,
    completeTask: unused,
    reportFailure: unused,
    leave: unused,
  });
  return { server, address: hostPort("127.0.0.1", await server.listen("127.0.0.1", 0)) };
}

test(
  "heartbeats that nobody answers end with the registration, and are not told of",
  limit,
  async (t) => {
    let numHeard = 0;
    let heardTwice = (): void => {};
    const heard = new Promise<void>((resolve) => {
      heardTwice = resolve;
    });
    const { server, address } = await listening(async () => {
      if (++numHeard === 2) heardTwice();
      return new Promise(() => {});
    });
    t.after(() => server.close(0));
    const told: unknown[] = [];
    const link = new CoordinatorLink({
      coordinatorAddress: address,
      observer: { retrying: (error) => told.push(error) },
    });
    t.after(() => link.close());
    const reply = await link.register(new AbortController().signal);
    assert.ok(reply !== undefined);
    link.startHeartbeats(
      reply,
      () => "idle",
      () => assert.fail("nobody ended the registration"),
    );
    await heard;
    link.stopHeartbeats();
    // It closes in order only once no call is open.
    await server.close(50_000);
    assert.deepEqual(told, []);
  },
);

for (const [is, heartbeat] of [
  ["away", async () => ({ version: 0 })],
  // It is not waited for until its call is over.
  ["silent", () => new Promise<never>(() => {})],
] as const) {
  test(`where a coordinator is ${is}, the one that has the run now is found`, limit, async (t) => {
    const first = await listening(heartbeat);
    const second = await listening(async () => {
      throw new LockstepError("E_UNKNOWN_WORKER", { worker: "worker" });
    });
    t.after(() => Promise.all([first.server.close(0), second.server.close(0)]));
    const codes: unknown[] = [];
    const link = new CoordinatorLink({
      coordinatorAddress: first.address,
      standbyAddresses: ["127.0.0.1:1", second.address],
      observer: { retrying: (error) => codes.push((error as LockstepError).code) },
    });
    t.after(() => link.close());
    const reply = await link.register(new AbortController().signal);
    assert.ok(reply !== undefined);
    if (is === "away") await first.server.close(0);
    let numEnds = 0;
    await new Promise<void>((resolve) => {
      link.startHeartbeats(
        reply,
        () => "idle",
        () => {
          numEnds += 1;
          link.stopHeartbeats();
          resolve();
        },
      );
    });
    assert.equal(link.address, second.address);
    assert.equal(numEnds, 1);
    assert.ok(!codes.includes("E_RPC_TIMEOUT"), codes.join());
  });
}
