import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { LockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { ControlClient } from "#lib/wire/control-client";
import { controlMethods } from "#lib/wire/control-codec";
import { type ControlHandlers, protocolVersion, type Task } from "#lib/wire/control-messages";
import { registerControlService } from "#lib/wire/control-server";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { GrpcServer } from "#lib/wire/grpc-server";
import { loadWireSecurity, type WireSecurity } from "#lib/wire/security";

const closers: (() => unknown)[] = [];
after(async () => {
  for (const close of closers) await close();
});

const roundTrip = <T>(
  definition: { serialize: (value: T) => Buffer; deserialize: (bytes: Buffer) => T },
  value: T,
): T => definition.deserialize(definition.serialize(value));

const taskWire = {
  serialize: controlMethods.nextTask.responseSerialize,
  deserialize: controlMethods.nextTask.responseDeserialize,
};

test("tasks of every kind survive the wire, token for token and bit for bit", () => {
  const plain = { noNullPrototype: true };
  const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
  const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
  const extras = fc.record({ hasNumbers: fc.boolean(), hasClasses: fc.boolean(), task: fc.nat(3) });
  const batch = fc.tuple(fc.integer({ min: 1, max: 3 }), extras).chain(([numRows, has]) =>
    fc.array(int32, { minLength: numRows * 4, maxLength: numRows * 4 }).map((ids) => ({
      numRows,
      ...(has.task === 0 ? {} : { task: has.task }),
      fields: {
        tokens: Int32Array.from(ids),
        ...(has.hasNumbers ? { numbers: Float32Array.from(ids, (id) => id / 3) } : {}),
        ...(has.hasClasses ? { label: Int32Array.from(ids.slice(0, numRows)) } : {}),
      },
    })),
  );
  const task: fc.Arbitrary<Task> = fc.oneof(
    fc
      .record(
        {
          kind: fc.constant("train" as const),
          lease: uint32,
          step: uint32,
          group: uint32,
          version: uint32,
          parts: fc.array(fc.tuple(batch, fc.double({ noNaN: true })), {
            minLength: 1,
            maxLength: 3,
          }),
        },
        plain,
      )
      .map(({ parts, ...rest }) => ({
        ...rest,
        gradScales: parts.map(([, scale]) => scale),
        batches: parts.map(([one]) => one),
      })),
    fc.record(
      {
        kind: fc.constant("evaluate" as const),
        lease: uint32,
        version: uint32,
        batches: fc.array(batch, { maxLength: 2 }),
      },
      plain,
    ),
    fc.record(
      {
        kind: fc.constant("generate" as const),
        lease: uint32,
        version: uint32,
        prompt: fc.array(int32, { maxLength: 5 }),
        maxNewTokens: fc.nat(100),
        endTokenIds: fc.array(int32, { maxLength: 2 }),
      },
      plain,
    ),
    fc.constant({ kind: "wait" as const }),
    fc.record(
      {
        kind: fc.constant("finished" as const),
        reason: fc.string({ maxLength: 20 }),
        interrupted: fc.boolean(),
      },
      plain,
    ),
  );
  fc.assert(
    fc.property(task, (value) => {
      assert.deepEqual(roundTrip(taskWire, value), value);
    }),
  );
});

test("what a model says of evaluated rows arrives as it was sent", () => {
  const { requestSerialize, requestDeserialize } = controlMethods.completeTask;
  const sums = [
    { lossSum: 1.5, weight: 3, outputs: Int32Array.of(2, 0, 1) },
    { lossSum: 2, weight: 4.5, outputs: Float32Array.of(0.25, -1e-30) },
    { lossSum: 2, weight: 4 },
  ];
  const request = { workerId: "w", lease: 7, result: { kind: "losses" as const, sums } };
  assert.deepEqual(requestDeserialize(requestSerialize(request)), request);
});

test("any bytes are either a message within its limits or an error of the catalogue", () => {
  const deserializers = Object.values(controlMethods).map(
    (method) => method.requestDeserialize as (bytes: Buffer) => unknown,
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      for (const deserialize of deserializers) {
        try {
          deserialize(Buffer.from(bytes));
        } catch (error) {
          assert.ok(error instanceof LockstepError, String(error));
          assert.equal(error.code, "E_MESSAGE_INVALID");
        }
      }
    }),
  );
});

test("rows that are not equal, and texts beyond their limit, are refused with the field's name", () => {
  const uneven: Task = {
    kind: "evaluate",
    lease: 1,
    version: 1,
    batches: [{ numRows: 3, fields: { tokens: new Int32Array(4) } }],
  };
  assert.throws(
    () => roundTrip(taskWire, uneven),
    /batches\[0\].*fields has tokens, which is not 3 equal rows/,
  );
  const { requestSerialize, requestDeserialize } = controlMethods.leave;
  assert.throws(
    () => requestDeserialize(requestSerialize({ workerId: "w", reason: "x".repeat(5_000) })),
    /reason has more than 4096 characters/,
  );
});

const handlers: ControlHandlers = {
  register: async ({ name }) => ({
    workerId: name,
    jobJson: "{}",
    shardAddresses: ["a:1", "b:2"],
    heartbeatIntervalMs: 5,
    retryAfterMs: 0,
    runId: "run",
    epoch: 1,
    memberSecret: "secret",
    waitReason: "",
  }),
  admit: () => {},
  nextTask: async (_request, signal) =>
    new Promise((resolve) =>
      signal.addEventListener("abort", () => {
        aborted();
        resolve({ kind: "wait" });
      }),
    ),
  completeTask: async ({ lease }) => ({ stale: lease === 7 }),
  checkWeights: async () => ({ isIntact: true }),
  heartbeat: async () => ({ version: 0 }),
  leave: async () => {},
  reportFailure: async () => {},
};
const certificates = join(packageRoot, "tests/fixtures/tls");
let aborted = (): void => {};

const identity = {
  protocolVersion,
  name: "me",
  host: "h",
  pid: 1,
  deviceKind: "k",
  deviceType: "cpu" as const,
  advisesBf16: true,
  bf16Slowdown: 0,
  advisesFp16: false,
  fp16Slowdown: 0,
  incarnation: "life",
};

async function serve(
  security: WireSecurity,
): Promise<(security: WireSecurity, timeoutMs?: number) => ControlClient> {
  const server = new GrpcServer({ security, maxReceiveBytes: 100_000 });
  registerControlService(server, handlers);
  const port = await server.listen("127.0.0.1", 0);
  closers.push(async () => server.close(0));
  return (clientSecurity, timeoutMs = 5_000) => {
    const client = new ControlClient({
      address: `127.0.0.1:${port}`,
      security: clientSecurity,
      timeoutMs,
    });
    closers.push(() => client.close());
    return client;
  };
}

test("a long poll that is given up, or times out, is noticed by the server", async () => {
  const connect = await serve({});
  const client = connect({}, 200);
  const poll = (signal?: AbortSignal) =>
    client.nextTask({ workerId: "me", maxWaitMs: 100, heldLeases: [] }, signal);
  const giveUp = new AbortController();
  const givenUp = poll(giveUp.signal);
  giveUp.abort();
  await assert.rejects(givenUp, { code: "E_RPC_UNAVAILABLE" });
  let isNoticed = false;
  aborted = () => {
    isNoticed = true;
  };
  // One whose time is over before the connection is there never reaches the server.
  for (let i = 0; i < 100 && !isNoticed; i++) {
    await assert.rejects(poll(), { code: "E_RPC_TIMEOUT" });
  }
  assert.ok(isNoticed);
});

test("a message beyond the server's limit is refused, and the connection stays usable", async () => {
  const client = (await serve({}))({});
  const sums = Array.from({ length: 20_000 }, () => ({ lossSum: 1, weight: 1 }));
  await assert.rejects(
    client.completeTask({ workerId: "me", lease: 1, result: { kind: "losses", sums } }),
    /RESOURCE_EXHAUSTED/,
  );
  const result = { kind: "losses" as const, sums: [] };
  assert.deepEqual(await client.completeTask({ workerId: "me", lease: 7, result }), {
    stale: true,
  });
});

test("mutual TLS admits holders of the authority's certificates only", async () => {
  const load = async (ca: string, holder: string): Promise<WireSecurity> =>
    loadWireSecurity(
      {
        tlsCaFile: join(certificates, `${ca}-ca.pem`),
        tlsCertFile: join(certificates, `${holder}.pem`),
        tlsKeyFile: join(certificates, `${holder}.key`),
        tlsServerName: "lockstep",
      },
      () => {},
    );
  const connect = await serve(await load("ours", "ours"));
  assert.equal((await connect(await load("ours", "ours")).register(identity)).workerId, "me");
  // The client sees itself whom it does not trust; of what a server refuses it sees a connection that is closed.
  await assert.rejects(connect(await load("theirs", "ours"), 10_000).register(identity), {
    code: "E_RPC_UNAVAILABLE",
  });
  for (const security of [await load("ours", "theirs"), {}]) {
    await assert.rejects(connect(security, 1_500).register(identity), (error: LockstepError) =>
      ["E_RPC_UNAVAILABLE", "E_RPC_TIMEOUT"].includes(error.code),
    );
  }
});

test("listeners of the bus hear every event in order, and one that throws disturbs nobody", () => {
  const errors: unknown[] = [];
  const bus = new InProcessEventBus((error) => errors.push(error));
  const heard: string[] = [];
  bus.subscribe(() => {
    throw new Error("broken display");
  });
  const end = bus.subscribe(({ type }) => heard.push(type));
  bus.publish({ type: "phase.changed", phase: "training" });
  end();
  bus.publish({ type: "phase.changed", phase: "done" });
  assert.deepEqual(heard, ["phase.changed"]);
  assert.equal(errors.length, 2);
});
