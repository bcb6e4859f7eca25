import assert from "node:assert/strict";
import { after, before, type TestOptions, test } from "node:test";
import type { LockstepEvent } from "#lib/core/events";
import { type EventBus, InProcessEventBus } from "#lib/wire/event-bus";
import { NatsLink } from "#lib/wire/nats/connection";
import { EventPublisher } from "#lib/wire/nats/event-publisher";
import { watchRun } from "#lib/wire/nats/event-watch";
import { startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";

// What watchers of a run may rely on, whether they are in its process or on the other side of a server.

interface Watcher {
  /** Once it has seen the run's end. */
  readonly seen: Promise<LockstepEvent[]>;
  /** Once it is heard. */
  readonly ready: Promise<void>;
}

interface WatchedBus {
  readonly bus: EventBus;
  watch(listener?: (event: LockstepEvent) => void): Watcher;
  close(): Promise<void>;
}

const note = (index: number): LockstepEvent => ({ type: "note", text: `n${index}` });
const ended: LockstepEvent = { type: "run.failed", code: "E_TEST", message: "over" };

/** @param replays whether who comes late is told what was before */
function suite(
  name: string,
  options: TestOptions,
  replays: boolean,
  open: () => Promise<WatchedBus>,
): void {
  test(
    `${name}: many early watchers see every event once, in order, to the end`,
    options,
    async () => {
      const watched = await open();
      const watchers = Array.from({ length: 10 }, () => watched.watch());
      await Promise.all(watchers.map(({ ready }) => ready));
      const sent = [...Array.from({ length: 300 }, (_, index) => note(index)), ended];
      for (const event of sent) watched.bus.publish(event);
      for (const { seen } of watchers) assert.deepEqual(await seen, sent);
      await watched.close();
    },
  );

  test(
    `${name}: a late watcher sees ${replays ? "all" : "what comes from then on"}, in order`,
    options,
    async () => {
      const watched = await open();
      const early = watched.watch();
      await early.ready;
      const before = [note(1), note(2)];
      for (const event of before) watched.bus.publish(event);
      const late = watched.watch();
      await late.ready;
      const then = [note(3), ended];
      for (const event of then) watched.bus.publish(event);
      assert.deepEqual(await early.seen, [...before, ...then]);
      assert.deepEqual(await late.seen, replays ? [...before, ...then] : then);
      await watched.close();
    },
  );

  test(`${name}: a watcher that fails harms neither the run nor the others`, options, async () => {
    const watched = await open();
    const failing = watched.watch(() => {
      throw new Error("a display that fails");
    });
    const other = watched.watch();
    await Promise.all([failing.ready, other.ready]);
    for (const event of [note(1), ended]) watched.bus.publish(event);
    assert.deepEqual(await other.seen, [note(1), ended]);
    await watched.close();
  });
}

/** Collects what it hears until the end. */
function collector(listener: (event: LockstepEvent) => void = () => {}) {
  const all: LockstepEvent[] = [];
  let over: (events: LockstepEvent[]) => void = () => {};
  const seen = new Promise<LockstepEvent[]>((resolve) => {
    over = resolve;
  });
  const hear = (event: LockstepEvent): void => {
    all.push(event);
    if (event.type === "run.failed") over(all);
    listener(event);
  };
  return { seen, hear };
}

suite("in one process", {}, false, async () => {
  const bus = new InProcessEventBus(() => {});
  return {
    bus,
    watch(listener) {
      const { seen, hear } = collector(listener);
      bus.subscribe(hear);
      return { seen, ready: Promise.resolve() };
    },
    close: async () => {},
  };
});

const withServer = needs("natsServer");
let nats: Awaited<ReturnType<typeof startNats>>;
before(async () => {
  if (withServer.skip === undefined) nats = await startNats();
});
after(async () => nats?.close());

let numRuns = 0;
suite("over NATS", withServer, true, async () => {
  const runId = (++numRuns).toString(16).padStart(16, "0");
  const link = await NatsLink.open(nats.settings, {
    ...{ role: "coordinator", name: "test", onNews: () => {} },
  });
  const stop = new AbortController();
  const bus = new InProcessEventBus(() => {});
  const publisher = new EventPublisher(bus, {
    connect: () =>
      NatsLink.open(nats.settings, { role: "coordinator", name: "test", onNews: () => {} }),
    retention: { maxAgeDays: null, maxGigabytes: null },
    onNews: () => {},
  });
  publisher.begin({ runId, runName: "run", epoch: 1 });
  return {
    bus,
    watch(listener) {
      const { seen, hear } = collector(listener);
      const follow = async (): Promise<void> => {
        for await (const { event } of watchRun(link, runId, {
          signal: stop.signal,
          onNews: () => {},
        })) {
          hear(event);
        }
      };
      follow().catch(() => {});
      return { seen, ready: Promise.resolve() };
    },
    close: async () => {
      stop.abort();
      assert.equal(await publisher.close(10_000), 0);
      await link.close();
    },
  };
});
