import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { NatsLink } from "#lib/wire/nats/connection";
import { EventPublisher } from "#lib/wire/nats/event-publisher";
import { encodeBatch, encodeEvent } from "#lib/wire/nats/event-records";
import { eventStream } from "#lib/wire/nats/event-stream";
import { findRun, listRuns, watchRun, type WatchedEvent } from "#lib/wire/nats/event-watch";
import { startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";

const withServer = needs("natsServer");
let nats: Awaited<ReturnType<typeof startNats>>;
let numRuns = 0;

before(async () => {
  if (withServer.skip === undefined) nats = await startNats();
});
after(async () => nats?.close());

const asIs = { maxAgeDays: null, maxGigabytes: null };
const note = (index: number): LockstepEvent => ({ type: "note", text: `n${index}` });
const ended: LockstepEvent = { type: "run.failed", code: "E_TEST", message: "over" };

const link = (news: string[] = []): Promise<NatsLink> =>
  NatsLink.open(nats.settings, {
    role: "coordinator",
    name: "test",
    onNews: (line) => news.push(line),
  });

function newRun(epoch = 1) {
  numRuns += 1;
  return { runId: numRuns.toString(16).padStart(16, "0"), runName: `run ${numRuns}`, epoch };
}

function publisher(bus: InProcessEventBus, news: string[] = [], limits = {}): EventPublisher {
  return new EventPublisher(bus, {
    connect: () => link(news),
    retention: asIs,
    onNews: (line) => news.push(line),
    limits,
  });
}

/** The events of a run until its end. */
async function watched(runId: string, onEvent: (event: WatchedEvent) => void = () => {}) {
  const own = await link();
  const over = new AbortController();
  const all: WatchedEvent[] = [];
  try {
    const news: string[] = [];
    for await (const event of watchRun(own, runId, {
      signal: over.signal,
      onNews: (line) => news.push(line),
    })) {
      all.push(event);
      onEvent(event);
      if (event.event.type === "run.failed" && event.isLatest) over.abort();
    }
    return { events: all.map(({ event }) => event), all, news };
  } finally {
    await own.close();
  }
}

test(
  "watchers that come early, in the middle and late see every event once, in order",
  withServer,
  async () => {
    const run = newRun();
    const bus = new InProcessEventBus();
    const sent: LockstepEvent[] = [];
    const send = (event: LockstepEvent): void => {
      sent.push(event);
      bus.publish(event);
    };
    const events = publisher(bus);
    // What is told before the run is known is published with it.
    for (let index = 0; index < 500; index++) send(note(index));
    events.begin(run);
    let isHalf = (): void => {};
    const half = new Promise<void>((resolve) => {
      isHalf = resolve;
    });
    let numSeen = 0;
    const early = watched(run.runId, () => {
      numSeen += 1;
      if (numSeen === 500) isHalf();
    });
    await half;
    const middle = watched(run.runId);
    for (let index = 500; index < 1_000; index++) send(note(index));
    send(ended);
    assert.equal(await events.close(10_000), 0);
    const late = watched(run.runId);
    for (const { events: seen, all, news } of await Promise.all([early, middle, late])) {
      assert.deepEqual(seen, sent);
      assert.deepEqual(
        all.map(({ sequence }) => sequence),
        sent.map((_, index) => index + 1),
      );
      assert.deepEqual(news, []);
    }
    assert.deepEqual(events.figures, { numPublished: 1_001, numDropped: 0, numWaiting: 0 });
  },
);

test("a slow watcher holds up neither the run nor the others", withServer, async () => {
  const run = newRun();
  const bus = new InProcessEventBus();
  const events = publisher(bus);
  events.begin(run);
  const own = await link();
  const slow = watchRun(own, run.runId, { signal: new AbortController().signal, onNews: () => {} });
  bus.publish(note(0));
  assert.equal((await slow.next()).value?.sequence, 1);
  // It asks for nothing more, and all of this is stored and seen by another one.
  for (let index = 1; index < 5_000; index++) bus.publish(note(index));
  bus.publish(ended);
  assert.equal(await events.close(20_000), 0);
  assert.equal((await watched(run.runId)).events.length, 5_001);
  assert.deepEqual((await slow.next()).value?.event, note(1));
  await slow.return();
  await own.close();
});

test(
  "events are kept while the server is away, and what was stored before is there when it is back",
  withServer,
  async () => {
    const run = newRun();
    const bus = new InProcessEventBus();
    const news: string[] = [];
    const events = publisher(bus, news);
    events.begin(run);
    let isFirst = (): void => {};
    const first = new Promise<void>((resolve) => {
      isFirst = resolve;
    });
    const seen = watched(run.runId, () => isFirst());
    bus.publish(note(0));
    await first;
    const [server] = nats.servers;
    await server?.stop();
    for (let index = 1; index < 100; index++) bus.publish(note(index));
    await server?.start();
    await server?.untilReady();
    bus.publish(ended);
    assert.equal(await events.close(20_000), 0);
    const { events: got } = await seen;
    assert.deepEqual(got, [...Array.from({ length: 100 }, (_, index) => note(index)), ended]);
    assert.match(news.join("\n"), /is lost.*again after/s);
  },
);

test(
  "what is too much for a server that is away is dropped, passing events first, and told",
  withServer,
  async () => {
    const run = newRun();
    const bus = new InProcessEventBus();
    const events = publisher(bus, [], { maxEvents: 50 });
    for (let step = 0; step < 200; step++) {
      bus.publish({ type: "worker.state", workerId: "w", state: "idle", step });
      if (step % 10 === 0) bus.publish(note(step));
    }
    bus.publish(ended);
    events.begin(run);
    assert.equal(await events.close(10_000), 0);
    const { events: got } = await watched(run.runId);
    const [gap] = got;
    assert.deepEqual(gap?.type === "events.dropped" && [gap.numEvents, gap.numLasting], [171, 0]);
    assert.equal(got.filter(({ type }) => type === "note").length, 20);
    assert.equal(events.figures.numDropped, 171);
  },
);

test("an owner that was replaced publishes nothing after the later epoch", withServer, async () => {
  const old = newRun(4);
  const [oldBus, newBus] = [new InProcessEventBus(), new InProcessEventBus()];
  const news: string[] = [];
  const stale = publisher(oldBus, news);
  stale.begin(old);
  let isSeen = (): void => {};
  const first = new Promise<void>((resolve) => {
    isSeen = resolve;
  });
  const seen = watched(old.runId, ({ epoch, sequence }) => {
    if (epoch === 5 && sequence === 1) isSeen();
  });
  oldBus.publish(note(1));
  while (stale.figures.numPublished < 1) await new Promise(setImmediate);
  const next = publisher(newBus);
  next.begin({ ...old, epoch: 5 });
  newBus.publish(note(2));
  await first;
  for (let index = 0; index < 20; index++) oldBus.publish(note(1_000 + index));
  while (!news.some((line) => line.includes("epoch 5 of this run"))) {
    await new Promise(setImmediate);
  }
  oldBus.publish(note(2_000));
  newBus.publish(ended);
  assert.equal(await next.close(10_000), 0);
  await stale.close(100);
  const { all } = await seen;
  assert.deepEqual(
    all.map(({ epoch, sequence, event }) => [epoch, sequence, event]),
    [
      [4, 1, note(1)],
      [5, 1, note(2)],
      [5, 2, ended],
    ],
  );
  assert.match(news.join("\n"), /epoch 5 of this run publishes events now; 20 events of epoch 4/);
});

test("a process that goes on in an epoch numbers on", withServer, async () => {
  const run = newRun();
  for (const event of [note(1), ended]) {
    const bus = new InProcessEventBus();
    const events = publisher(bus);
    events.begin(run);
    bus.publish(event);
    assert.equal(await events.close(10_000), 0);
  }
  const { all } = await watched(run.runId);
  assert.deepEqual(
    all.map(({ sequence }) => sequence),
    [1, 2],
  );
});

test("what retention took away is told, and the rest comes in order", withServer, async () => {
  const run = newRun();
  const bus = new InProcessEventBus();
  const events = publisher(bus, [], { batchBytes: 100 });
  events.begin(run);
  for (let index = 0; index < 100; index++) bus.publish(note(index));
  bus.publish(ended);
  assert.equal(await events.close(10_000), 0);
  const own = await link();
  const manager = await own.manager();
  await manager.streams.purge(eventStream, { filter: `lockstep.events.${run.runId}`, keep: 10 });
  await own.close();
  const { all, news } = await watched(run.runId);
  const first = all[0]?.sequence ?? 0;
  assert.ok(first > 50, `${first}`);
  assert.deepEqual(
    all.map(({ sequence }) => sequence),
    Array.from({ length: 102 - first }, (_, index) => first + index),
  );
  assert.deepEqual(news, [`events 1 to ${first - 1} of epoch 1 are not kept any more`]);
});

test(
  "the stream is kept as long as the settings say, and a change is told",
  withServer,
  async () => {
    const news: string[] = [];
    for (const maxAgeDays of [2, 2, null]) {
      const bus = new InProcessEventBus();
      const events = new EventPublisher(bus, {
        connect: () => link(),
        retention: { maxAgeDays, maxGigabytes: null },
        onNews: (line) => news.push(line),
      });
      events.begin(newRun());
      bus.publish(ended);
      assert.equal(await events.close(10_000), 0);
    }
    assert.deepEqual(news, [
      "the stream LOCKSTEP_EVENTS now keeps events of all runs for 2 days; it kept them for 30 days",
    ]);
  },
);

test(
  "runs are found by id, its beginning and name; another one is refused with those that there are",
  withServer,
  async () => {
    const own = await link();
    const run = { ...newRun(7), runId: "feedfeedfeedfeed", runName: "by name" };
    const bus = new InProcessEventBus();
    const events = publisher(bus);
    events.begin(run);
    bus.publish(ended);
    assert.equal(await events.close(10_000), 0);
    const { latestMs: _, ...latest } = (await listRuns(own))[0] ?? {};
    assert.deepEqual(latest, { ...run, outcome: "failed" });
    for (const given of [undefined, "feedfeedfeedfeed", "feed", "by name"]) {
      assert.equal((await findRun(own, given)).runId, run.runId, given);
    }
    await assert.rejects(findRun(own, "fee"), {
      code: "E_RUN_UNKNOWN",
      message: /has no run fee; the latest are by name \(feedfeedfeedfeed\)/,
    });
    await own.close();
  },
);

test("a watcher of whom retention took whole epochs away is told so", withServer, async () => {
  const run = newRun();
  for (const epoch of [1, 2]) {
    const bus = new InProcessEventBus();
    const events = publisher(bus);
    events.begin({ ...run, epoch });
    bus.publish(note(epoch));
    if (epoch === 2) bus.publish(ended);
    assert.equal(await events.close(10_000), 0);
  }
  const own = await link();
  const manager = await own.manager();
  await manager.streams.purge(eventStream, { filter: `lockstep.events.${run.runId}`, keep: 1 });
  await own.close();
  const { all, news } = await watched(run.runId);
  assert.deepEqual(
    all.map(({ epoch }) => epoch),
    all.map(() => 2),
  );
  assert.deepEqual(news.slice(0, 1), ["of what came before epoch 2 of this run nothing is kept"]);
});

test("what another program left in the stream hides no run", withServer, async () => {
  const own = await link();
  const run = newRun();
  const bus = new InProcessEventBus();
  const events = publisher(bus);
  events.begin(run);
  bus.publish(ended);
  assert.equal(await events.close(10_000), 0);
  await own.streams.publish("lockstep.events.other", "no batch of events");
  assert.equal((await findRun(own, run.runName)).runId, run.runId);
  await own.close();
});

test("of more than a thousand runs the latest is found", withServer, async () => {
  const own = await link();
  const latest = "0000000000000000";
  const ids = Array.from({ length: 1_050 }, (_, index) => `f${String(index).padStart(15, "0")}`);
  await Promise.all(
    [latest, ...ids].map((runId) => {
      // Long after those of other tests.
      const events = [encodeEvent(Date.now() + (runId === latest ? 2e9 : 1e9), ended)];
      const batch = encodeBatch({ runId, runName: `of ${runId}`, epoch: 1, sequence: 1 }, events);
      return own.streams.publish(`lockstep.events.${runId}`, batch);
    }),
  );
  assert.equal((await findRun(own, undefined)).runId, latest);
  assert.equal((await findRun(own, `of ${latest}`)).runId, latest);
  await own.close();
});

test("a part of a day is an age that the server takes", withServer, async () => {
  const news: string[] = [];
  const bus = new InProcessEventBus();
  const events = new EventPublisher(bus, {
    connect: () => link(),
    // In nanoseconds, and as a double, it is no whole number.
    retention: { maxAgeDays: 0.035, maxGigabytes: null },
    onNews: (line) => news.push(line),
  });
  events.begin(newRun());
  bus.publish(ended);
  assert.equal(await events.close(10_000), 0);
  assert.match(news.join("\n"), /keeps events of all runs for 0\.035 days/);
});

test("who watches goes on where the stream is lost and made anew", {
  ...withServer,
  timeout: 60_000,
}, async () => {
  const run = newRun();
  const bus = new InProcessEventBus();
  const events = publisher(bus);
  events.begin(run);
  const own = await link();
  const seen = watchRun(own, run.runId, {
    ...{ signal: new AbortController().signal, onNews: () => {} },
  });
  bus.publish(note(0));
  assert.deepEqual((await seen.next()).value?.event, note(0));
  await (await own.manager()).streams.delete(eventStream);
  // It is the first message of a stream in which the watcher was far ahead.
  bus.publish(note(1));
  const { value } = await seen.next();
  assert.deepEqual([value?.sequence, value?.event], [2, note(1)]);
  bus.publish(ended);
  assert.deepEqual((await seen.next()).value?.event, ended);
  await seen.return();
  assert.equal(await events.close(10_000), 0);
  await own.close();
});
