import assert from "node:assert/strict";
import { test } from "node:test";
import type { LockstepEvent } from "#lib/core/events";
import { EventOutbox } from "#lib/wire/nats/event-outbox";
import { decodeBatch, encodeBatch, encodeEvent } from "#lib/wire/nats/event-records";

const run = { runId: "0123456789abcdef", runName: "test", epoch: 3 };
const note = (text: string): LockstepEvent => ({ type: "note", text });
const passing = (step: number): LockstepEvent => ({
  ...{ type: "worker.state", workerId: "w", state: "idle", step },
});

/** Everything that the outbox gives, as a reader sees it. */
function drained(outbox: EventOutbox): { sequence: number; event: LockstepEvent }[] {
  const all: { sequence: number; event: LockstepEvent }[] = [];
  for (let batch = outbox.next(); batch !== undefined; batch = outbox.next()) {
    const { sequence, events } = decodeBatch(
      encodeBatch({ ...run, sequence: batch.sequence }, batch.events),
    );
    all.push(...events.map(({ event }, index) => ({ sequence: sequence + index, event })));
    outbox.acknowledge();
  }
  return all;
}

test("events leave in order, numbered from 1 without a gap", () => {
  const outbox = new EventOutbox({ batchBytes: 300 });
  for (let index = 0; index < 50; index++) outbox.add(index, note(`n${index}`));
  assert.equal(outbox.length, 50);
  const all = drained(outbox);
  assert.deepEqual(
    all.map(({ sequence, event }) => [sequence, event]),
    Array.from({ length: 50 }, (_, index) => [index + 1, note(`n${index}`)]),
  );
  assert.deepEqual([outbox.length, outbox.numPublished, outbox.numDropped], [0, 50, 0]);
});

test("a message is the same one until it is acknowledged", () => {
  const outbox = new EventOutbox();
  outbox.add(1, note("a"));
  const first = outbox.next();
  outbox.add(2, note("b"));
  assert.equal(outbox.next(), first);
  outbox.acknowledge();
  assert.deepEqual(outbox.next(), { sequence: 2, events: [encodeEvent(2, note("b"))] });
});

test("beyond the limit the oldest passing events go first, and the gap is told with what it held", () => {
  const outbox = new EventOutbox({ maxEvents: 10 });
  for (let index = 0; index < 8; index++) {
    outbox.add(2 * index, passing(index));
    outbox.add(2 * index + 1, note(`n${index}`));
  }
  const all = drained(outbox).map(({ event }) => event);
  const gap = { numEvents: 6, numLasting: 0, fromMs: 0, toMs: 10 };
  assert.deepEqual(all, [
    { type: "events.dropped", ...gap },
    ...[0, 1, 2, 3, 4, 5].map((index) => note(`n${index}`)),
    ...[passing(6), note("n6"), passing(7), note("n7")],
  ]);
  assert.equal(outbox.numDropped, 6);
});

test("where nothing passes, the oldest of all goes, which is told too", () => {
  const outbox = new EventOutbox({ maxEvents: 3 });
  for (let index = 0; index < 5; index++) outbox.add(index, note(`n${index}`));
  const all = drained(outbox).map(({ event }) => event);
  assert.deepEqual(all, [
    { type: "events.dropped", numEvents: 2, numLasting: 2, fromMs: 0, toMs: 1 },
    ...["n2", "n3", "n4"].map(note),
  ]);
});

test("what is kept never exceeds the limits, whatever comes", () => {
  const outbox = new EventOutbox({ maxEvents: 100, maxBytes: 5_000, eventBytes: 1_000 });
  let added = 0;
  let published = 0;
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  for (let round = 0; round < 5_000; round++) {
    const event = random(3) === 0 ? note("x".repeat(random(1_200))) : passing(round);
    outbox.add(round, event);
    added += 1;
    const waiting = outbox.length;
    assert.ok(waiting <= 100 + 513, `${waiting}`);
    if (random(40) === 0) {
      const batch = outbox.next();
      assert.ok(batch !== undefined && Buffer.byteLength(batch.events.join()) < 140_000);
      published += batch.events.filter((json) => !json.includes("events.dropped")).length;
      outbox.acknowledge();
    }
  }
  published += drained(outbox).filter(({ event }) => event.type !== "events.dropped").length;
  assert.equal(published + outbox.numDropped, added);
  assert.ok(outbox.numDropped > 0);
});

test("figures that are not finite arrive, and texts arrive without control characters", () => {
  const event = {
    type: "step.completed",
    loss: Number.NaN,
    gradientNorm: Number.POSITIVE_INFINITY,
    metrics: { a: Number.NEGATIVE_INFINITY },
  } as unknown as LockstepEvent;
  const decoded = decodeBatch(
    encodeBatch({ ...run, sequence: 9 }, [
      encodeEvent(12.7, event),
      encodeEvent(13, note("a\u001b[2Jb\n\tc\u009b")),
    ]),
  );
  assert.deepEqual(decoded, {
    ...run,
    sequence: 9,
    events: [
      { timeMs: 13, event },
      { timeMs: 13, event: note("a\ufffd[2Jb\n\tc\ufffd") },
    ],
  });
});

test("a message that no coordinator wrote is refused by name", () => {
  const good = {
    v: 1,
    run: run.runId,
    name: "n",
    epoch: 1,
    seq: 1,
    events: [{ t: 1, e: { type: "note" } }],
  };
  const bad: readonly (readonly [message: unknown, problem: RegExp])[] = [
    [{ ...good, v: 2 }, /its version is 2/],
    [{ ...good, run: "../x" }, /its run is/],
    [{ ...good, epoch: 0 }, /its epoch is 0/],
    [{ ...good, seq: 1.5 }, /its sequence number is 1.5/],
    [{ ...good, events: [] }, /no list of 1 to/],
    [{ ...good, events: [{ t: "x", e: { type: "note" } }] }, /has no time/],
    [{ ...good, events: [{ t: 1, e: [] }] }, /has no type/],
    [null, /its version is/],
  ];
  for (const [message, problem] of bad) {
    assert.throws(() => decodeBatch(Buffer.from(JSON.stringify(message))), {
      code: "E_EVENT_INVALID",
      message: problem,
    });
  }
  assert.throws(() => decodeBatch(Buffer.from("{")), {
    code: "E_EVENT_INVALID",
    message: /no JSON/,
  });
  assert.throws(() => decodeBatch(new Uint8Array(2 << 20)), { code: "E_EVENT_INVALID" });
});
