import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test, type TestOptions } from "node:test";
import { thisProcess } from "#lib/core/process-identity";
import type { HeldJob } from "#lib/queue/held-job";
import type { Job, JobOwner, JobRequestFields } from "#lib/queue/job";
import { JobQueue } from "#lib/queue/job-queue";
import type { RecordStore } from "#lib/queue/record-store";
import { withCode } from "#tests/support/failure";

/** Opens one queue's records, again and again, as its processes do; each call of `fresh` begins another queue. */
interface StoreOpener {
  readonly fresh: () => Promise<() => Promise<RecordStore>>;
}

export const noProgress = {
  step: 0,
  totalSteps: null,
  loss: null,
  address: null,
  workers: null,
  runId: null,
};
const reached = (step: number) => ({ step, runId: null });
const never = new AbortController().signal;

export const fields = (name: string, more: Partial<JobRequestFields> = {}): JobRequestFields => ({
  ...{ name, config: "max_steps: 1\n", flags: [], directory: "/", outputDir: `/out/${name}` },
  ...{ priority: 0, after: [], maxTries: 3 },
  ...more,
});

const owner = (agent: string, leaseMs = 60_000): JobOwner => ({
  ...{ agent, instance: randomUUID(), host: "here", process: thisProcess(), leaseMs },
});

/** What a queue does, wherever its records are. */
export function queueSuite(where: string, opener: StoreOpener, options: TestOptions = {}): void {
  const queueTest = (
    name: string,
    body: (open: () => Promise<JobQueue>, store: () => Promise<RecordStore>) => Promise<void>,
  ): void => {
    test(`${where}: ${name}`, options, async () => {
      const openStore = await opener.fresh();
      const opened: { close(): Promise<void> }[] = [];
      const store = async (): Promise<RecordStore> => {
        const one = await openStore();
        opened.push(one);
        return one;
      };
      const open = async (): Promise<JobQueue> =>
        new JobQueue(await store(), { patienceMs: 10_000, retryMs: 1 });
      try {
        await body(open, store);
      } finally {
        for (const each of opened) await each.close();
      }
    });
  };
  const take = async (queue: JobQueue, by = owner("a")): Promise<HeldJob> => {
    const held = await queue.take(by, never);
    assert.ok(held !== undefined);
    return held;
  };
  const stateOf = async (queue: JobQueue, { id }: Job): Promise<Job> => (await queue.find(id)).job;

  queueTest("a job is taken, told of and done, and outlives who had it", async (open, store) => {
    const submitted = await (await open()).submit(fields("one", { flags: ["--max_steps=2"] }));
    const agent = await open();
    const held = await take(agent);
    assert.deepEqual(held.job.flags, ["--max_steps=2"]);
    assert.equal(held.job.id, submitted.id);
    assert.equal(held.job.epoch, 1);
    await held.beat({ ...noProgress, step: 7, totalSteps: 9 });
    const [view] = await (await open()).list();
    assert.equal(view?.job.state, "running");
    assert.equal(view.beat?.step, 7);
    assert.ok(await held.done(reached(9), { step: 9, mastersSha256: "ab" }));
    const after = await stateOf(await open(), submitted);
    assert.deepEqual([after.state, after.step], ["done", 9]);
    assert.deepEqual(after.result, { step: 9, mastersSha256: "ab" });
    assert.equal(await agent.take(owner("a"), never, { untilEmpty: true }), undefined);
    assert.deepEqual(await (await store()).entries("beats"), []);
  });

  queueTest("higher priorities come first, and equal ones in order", async (open) => {
    const queue = await open();
    for (const [name, priority] of [
      ["a", 0],
      ["b", 5],
      ["c", 0],
      ["d", -1],
      ["e", 5],
    ] as const) {
      await queue.submit(fields(name, { priority }));
    }
    const names: string[] = [];
    for (let i = 0; i < 5; i++) names.push((await take(queue)).job.name);
    assert.deepEqual(names, ["b", "e", "a", "c", "d"]);
  });

  queueTest(
    "jobs of one millisecond, or of a clock that is behind, come in order",
    async (open, store) => {
      const queue = await open();
      const names = Array.from({ length: 12 }, (_, i) => `${i}`);
      for (const name of names) await queue.submit(fields(name));
      const ahead = await queue.submit(fields("ahead"));
      const records = await store();
      const ofAhead = await records.get("jobs", ahead.id);
      assert.ok(ofAhead !== undefined);
      const submittedAt = new Date(Date.now() + 30_000).toISOString();
      const record = JSON.stringify({ ...ahead, submittedAt });
      assert.ok(await records.write("jobs", ahead.id, record, ofAhead.revision));
      await queue.submit(fields("last"));
      assert.deepEqual(
        (await queue.list()).map(({ job }) => job.name),
        [...names, "ahead", "last"],
      );
    },
  );

  queueTest("a job waits for those that it comes after, until all are done", async (open) => {
    const queue = await open();
    const first = await queue.submit(fields("first"));
    const second = await queue.submit(fields("second", { priority: 1 }));
    const last = await queue.submit(fields("last", { priority: 9, after: [first.id, second.id] }));
    const view = (await queue.list()).find(({ job }) => job.id === last.id);
    assert.deepEqual(new Set(view?.waitsFor.map(({ id }) => id)), new Set([first.id, second.id]));
    const [two, one] = [await take(queue), await take(queue)];
    assert.deepEqual([two.job.name, one.job.name], ["second", "first"]);
    await two.done(reached(1), { step: 1, mastersSha256: null });
    await one.failed(reached(0), { error: "no", isFinal: true });
    // What failed holds it, until somebody has it run again.
    assert.equal(await queue.take(owner("a"), never, { untilEmpty: true }), undefined);
    await queue.resume(first.id);
    await (await take(queue)).done(reached(1), { step: 1, mastersSha256: null });
    assert.equal((await take(queue)).job.name, "last");
    await assert.rejects(
      queue.submit(fields("x", { after: ["aaaaaaaa"] })),
      withCode("E_JOB_UNKNOWN"),
    );
  });

  queueTest("of many agents one gets each job", async (open) => {
    const queue = await open();
    const ids: string[] = [];
    for (let i = 0; i < 12; i++) ids.push((await queue.submit(fields(`job${i}`))).id);
    const agents = await Promise.all([1, 2, 3, 4].map(() => open()));
    const taken = await Promise.all(
      agents.flatMap((agent, i) => [0, 1, 2].map(() => take(agent, owner(`agent${i}`)))),
    );
    assert.deepEqual(taken.map(({ job }) => job.id).sort(), ids.sort());
    for (const { job } of taken) assert.equal(job.epoch, 1);
  });

  queueTest("of writers at once none loses what it wrote", async (open) => {
    const queue = await open();
    const { id } = await queue.submit(fields("saves"));
    await take(queue);
    const others = await Promise.all([1, 2, 3, 4].map(() => open()));
    await Promise.all(others.flatMap((other) => [1, 2, 3].map(() => other.askSave(id))));
    assert.equal((await queue.find(id)).job.savesAsked, 12);
  });

  queueTest(
    "a silent agent's job is another's, and the silent one changes nothing more",
    async (open) => {
      const queue = await open();
      await queue.submit(fields("silent"));
      const before = await take(queue, owner("silent", 300));
      await before.beat({ ...noProgress, step: 3 });
      const after = await take(await open(), owner("awake"));
      assert.equal(after.job.epoch, 2);
      assert.match(after.job.error ?? "", /agent silent .* gave no sign of life/);
      assert.equal(after.job.step, 3);
      assert.equal(await before.beat(noProgress), undefined);
      assert.equal(await before.done(reached(1), { step: 1, mastersSha256: null }), false);
      assert.equal(await before.stopped(reached(1)), false);
      assert.equal(await before.failed(reached(1), { error: "x", isFinal: true }), false);
      assert.equal((await queue.find(after.job.id)).beat, undefined);
      await after.beat({ ...noProgress, step: 5 });
      assert.equal((await queue.find(after.job.id)).beat?.step, 5);
      assert.ok(await after.done(reached(6), { step: 6, mastersSha256: null }));
    },
  );

  queueTest("an agent that is gone is not waited for", async (open) => {
    const queue = await open();
    await queue.submit(fields("left"));
    const gone = { ...owner("gone", 3_600_000), process: { ...thisProcess(), startTicks: 1 } };
    await take(queue, gone);
    const next = await take(await open());
    assert.match(next.job.error ?? "", /ended and left the job unfinished/);
  });

  queueTest("a job that fails each time is parked with its last error", async (open) => {
    const queue = await open();
    const job = await queue.submit(fields("poison"));
    for (const [i, state] of [["queued"], ["queued"], ["parked"]].entries()) {
      const held = await take(queue);
      assert.equal(held.job.tries, i + 1);
      await held.failed(reached(0), { error: `wrong ${i}`, isFinal: false });
      assert.deepEqual([(await stateOf(queue, job)).state], state);
    }
    assert.equal((await stateOf(queue, job)).error, "wrong 2");
    assert.equal(await queue.take(owner("a"), never, { untilEmpty: true }), undefined);
    assert.equal((await queue.resume(job.id)).state, "queued");
    // A step more shows that it is none that fails each time.
    for (const step of [4, 8, 12, 16]) {
      await (await take(queue)).failed(reached(step), { error: "later", isFinal: false });
    }
    assert.equal((await stateOf(queue, job)).state, "queued");
    await (await take(queue)).failed(reached(16), { error: "config", isFinal: true });
    assert.equal((await stateOf(queue, job)).state, "failed");
  });

  queueTest("a job that kills each agent that has it is parked", async (open) => {
    const queue = await open();
    const job = await queue.submit(fields("deadly"));
    for (let i = 0; i < 3; i++) {
      const held = await take(queue, {
        ...owner(`agent${i}`, 3_600_000),
        process: { ...thisProcess(), startTicks: 1 },
      });
      // It comes no further than the first time.
      await held.beat({ ...noProgress, step: 4 });
    }
    assert.equal(await queue.take(owner("a"), never, { untilEmpty: true }), undefined);
    const { state, error, step } = await stateOf(queue, job);
    assert.deepEqual([state, step], ["parked", 4]);
    assert.match(error ?? "", /agent agent2 .* ended and left the job unfinished/);
  });

  queueTest("what a person asks for comes true, whether the job waits or runs", async (open) => {
    const queue = await open();
    const job = await queue.submit(fields("asked"));
    assert.equal((await queue.ask(job.id, "pause")).state, "paused");
    assert.equal(await queue.take(owner("a"), never, { untilEmpty: true }), undefined);
    await queue.resume(job.id);
    const held = await take(queue);
    await queue.ask(job.id, "pause");
    assert.equal((await held.look())?.asked, "pause");
    assert.ok(await held.stopped(reached(2)));
    const paused = await stateOf(queue, job);
    assert.deepEqual([paused.state, paused.step, paused.asked], ["paused", 2, null]);
    await queue.resume(job.id);
    // Given back by an agent that leaves: no try is counted.
    await (await take(queue)).stopped(reached(2));
    const again = await take(queue);
    assert.equal(again.job.tries, 1);
    await queue.askSave(job.id);
    assert.equal((await again.look())?.savesAsked, 1);
    await queue.ask(job.id, "cancel");
    await again.stopped(reached(3));
    assert.equal((await stateOf(queue, job)).state, "cancelled");
    await assert.rejects(queue.askSave(job.id), withCode("E_JOB_STATE"));
    await assert.rejects(queue.ask(job.id, "pause"), withCode("E_JOB_STATE"));
    await assert.rejects(queue.ask("nosuchid", "pause"), withCode("E_JOB_UNKNOWN"));
    const done = await queue.submit(fields("done"));
    await (await take(queue)).done(reached(1), { step: 1, mastersSha256: null });
    await assert.rejects(queue.ask(done.id, "cancel"), withCode("E_JOB_STATE"));
    await assert.rejects(queue.resume(done.id), withCode("E_JOB_STATE"));
  });

  queueTest("two jobs have no output directory in common", async (open) => {
    const queue = await open();
    await queue.submit(fields("one", { outputDir: "/out" }));
    const twin = fields("two", { outputDir: "/out" });
    await assert.rejects(queue.submit(twin), withCode("E_JOB_OUTPUT_DIR"));
    await (await take(queue)).done(reached(1), { step: 1, mastersSha256: null });
    await queue.submit(twin);
  });

  queueTest("a job is not run again where another one has its directory since", async (open) => {
    const queue = await open();
    const old = await queue.submit(fields("old", { outputDir: "/out" }));
    await (await take(queue)).failed(reached(0), { error: "no", isFinal: true });
    const young = await queue.submit(fields("young", { outputDir: "/out" }));
    await assert.rejects(queue.resume(old.id), withCode("E_JOB_OUTPUT_DIR"));
    assert.equal((await stateOf(queue, old)).state, "failed");
    await (await take(queue)).done(reached(1), { step: 1, mastersSha256: null });
    assert.equal((await stateOf(queue, young)).state, "done");
    assert.equal((await queue.resume(old.id)).state, "queued");
  });

  queueTest("when a job that failed is tried again is told", async (_open, store) => {
    const queue = new JobQueue(await store(), { patienceMs: 10_000, retryMs: 60_000 });
    const { id } = await queue.submit(fields("failed"));
    const next = async () => (await queue.list()).find(({ job }) => job.id === id)?.triedAgainAt;
    assert.equal(await next(), undefined);
    const held = await take(queue);
    const beforeMs = Date.now();
    await held.failed(reached(0), { error: "no", isFinal: false });
    const waitMs = ((await next())?.getTime() ?? 0) - beforeMs;
    assert.ok(waitMs >= 60_000 && waitMs <= 60_000 + Date.now() - beforeMs, `${waitMs} ms`);
    await queue.ask(id, "pause");
    assert.equal(await next(), undefined);
  });

  queueTest("signs of life wake nobody, and a job whoever waits for it", async (open, store) => {
    const queue = await open();
    const [own, other] = [await queue.submit(fields("own")), await queue.submit(fields("other"))];
    const held = await take(queue);
    const waiting = await store();
    assert.equal((await waiting.entries("jobs")).length, 2);
    const leave = new AbortController();
    const woken: string[] = [];
    const wait = async (name: string, key?: string): Promise<void> => {
      await waiting.changed(60_000, leave.signal, key);
      woken.push(name);
    };
    const all = [wait("own", own.id), wait("any"), wait("other", other.id)];
    if (where === "NATS") {
      await held.beat(noProgress);
      // What is written later arrives later.
      await queue.askSave(own.id);
      await Promise.all(all.slice(0, 2));
      assert.deepEqual(woken.sort(), ["any", "own"]);
      assert.deepEqual((await waiting.entries("beats")).length, 1);
    }
    leave.abort();
    await Promise.all(all);
  });

  queueTest("a record that is none of a job is left alone", async (open, store) => {
    const queue = await open();
    await queue.submit(fields("good"));
    const records = await store();
    assert.ok(await records.write("jobs", "badbadba", "{", 0));
    assert.equal(await records.write("jobs", "badbadba", "[]", 0), false);
    assert.equal((await (await open()).list()).length, 1);
    assert.equal((await take(queue)).job.name, "good");
    await assert.rejects(queue.find("badbadba"), withCode("E_QUEUE_RECORD"));
  });

  queueTest("a job that nobody could read is refused, and not queued", async (open) => {
    const queue = await open();
    const flags = Array.from({ length: 300 }, (_, i) => `--logging_steps=${i}`);
    await assert.rejects(queue.submit(fields("flags", { flags })), withCode("E_QUEUE_RECORD"));
    const long = Array.from({ length: 100 }, () => `--run_name=${"x".repeat(8_000)}`);
    await assert.rejects(queue.submit(fields("long", { flags: long })), withCode("E_QUEUE_RECORD"));
    assert.deepEqual(await queue.list(), []);
  });

  queueTest("the largest job that is queued has room for whatever becomes of it", async (open) => {
    const queue = await open();
    const flags = (numChars: number): string[] =>
      Array.from({ length: Math.ceil(numChars / 8_000) }, () => "x".repeat(8_000));
    const sizes = [512_000, 504_000, 496_000, 488_000, 480_000, 472_000, 464_000, 456_000, 448_000];
    for (const size of sizes) {
      const job = await queue
        .submit(fields("large", { flags: flags(size) }))
        .catch(() => undefined);
      if (job === undefined) continue;
      const held = await take(queue, { ...owner("a".repeat(256)), host: "h".repeat(256) });
      // As many as are remembered.
      for (let i = 0; i < 40; i++) await queue.askSave(job.id);
      await held.failed(reached(1), { error: "\u0001".repeat(8_192), isFinal: false });
      const { epoch, error, savesAsked } = await stateOf(queue, job);
      assert.deepEqual([epoch, error?.length, savesAsked], [1, 8_192, 40]);
      return;
    }
    assert.fail("none was queued");
  });

  queueTest("a record under another one's name is left alone", async (open, store) => {
    const queue = await open();
    const { id } = await queue.submit(fields("good"));
    const records = await store();
    const value = (await records.get("jobs", id))?.value ?? "";
    // First by turn, and there is no job of the id that it gives.
    const copy = value.replace(`"id":"${id}"`, '"id":"zzzzzzzz"').replace('y":0', 'y":9');
    assert.ok(await records.write("jobs", "copycopy", copy, 0));
    assert.equal((await take(queue)).job.id, id);
    await assert.rejects(queue.find("copycopy"), withCode("E_QUEUE_RECORD"));
  });
}
