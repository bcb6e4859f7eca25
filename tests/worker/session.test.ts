import assert from "node:assert/strict";
import { test } from "node:test";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { numGradientBuffers, Session } from "#worker/session";
import { ShardTransfers } from "#worker/transfers";
import { passOf } from "#tests/support/members";

const layout = buildParameterLayout([{ name: "w", shape: [2, 2] }], "bfloat16");

function session(stop?: AbortSignal): Session {
  const transfers = new ShardTransfers({
    layout,
    addresses: ["127.0.0.1:1"],
    security: {},
    pass: passOf(),
  });
  return new Session("w", transfers, stop);
}

interface Sending {
  readonly promise: Promise<void>;
  readonly arrive: () => void;
  readonly fail: (error: Error) => void;
}

function sending(): Sending {
  let arrive = (): void => {};
  let fail = (_error: Error): void => {};
  const promise = new Promise<void>((resolve, reject) => {
    arrive = resolve;
    fail = reject;
  });
  return { promise, arrive, fail };
}

const turn = async (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a buffer is taken again only when what it held has arrived", async () => {
  const current = session();
  const groups = Array.from({ length: numGradientBuffers }, sending);
  for (const [i, { promise }] of groups.entries()) {
    await current.untilBufferFree();
    assert.equal(current.freeBuffer(), i);
    current.start(i, i + 1, async () => promise);
  }
  assert.deepEqual(current.heldLeases, [1, 2]);
  let isFree = false;
  const free = current.untilBufferFree().then(() => {
    isFree = true;
  });
  await turn();
  assert.equal(isFree, false);
  groups[1]?.arrive();
  await free;
  assert.equal(current.freeBuffer(), 1);
  assert.deepEqual(current.heldLeases, [1]);
  groups[0]?.arrive();
  await current.close();
  assert.deepEqual(current.heldLeases, []);
});

test("the first delivery to fail ends the session; what fails after it is no cause", async () => {
  const current = session();
  const groups = [sending(), sending()];
  for (const [i, { promise }] of groups.entries()) current.start(i, i + 1, async () => promise);
  groups[1]?.fail(new Error("no space"));
  await assert.rejects(current.untilBufferFree(), /no space/);
  assert.equal(current.signal.aborted, true);
  let isClosed = false;
  const closed = current.close().then(() => {
    isClosed = true;
  });
  await turn();
  // The other buffer is still being read.
  assert.equal(isClosed, false);
  groups[0]?.fail(new Error("cancelled"));
  await closed;
  assert.throws(() => current.throwIfFailed(), /no space/);
});

test("a stop ends the session and is no failure of its deliveries", async () => {
  const stop = new AbortController();
  const current = session(stop.signal);
  const group = sending();
  current.start(0, 1, async () => group.promise);
  stop.abort();
  assert.equal(current.signal.aborted, true);
  group.fail(new Error("cancelled"));
  await current.close();
  assert.equal(current.failure, undefined);
});
