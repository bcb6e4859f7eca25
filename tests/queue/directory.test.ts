import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { LockstepError } from "#lib/core/errors/index";
import { thisProcess } from "#lib/core/process-identity";
import { DirectoryStore } from "#lib/queue/directory-store";
import type { JobOwner } from "#lib/queue/job";
import { JobQueue } from "#lib/queue/job-queue";
import { maxRecordBytes, type RecordStore } from "#lib/queue/record-store";
import { retryDelayMs } from "#lib/queue/transitions";
import { withCode } from "#tests/support/failure";
import { fields, noProgress, queueSuite } from "./suite.js";

const owner = (): JobOwner => ({
  ...{ agent: "a", instance: "b", host: "here", process: thisProcess(), leaseMs: 60_000 },
});

const never = new AbortController().signal;

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lockstep-queue-"));
});
after(() => rm(root, { recursive: true, force: true }));

queueSuite("directory", {
  fresh: async () => {
    const directory = await mkdtemp(join(root, "q-"));
    return () => DirectoryStore.open(directory);
  },
});

test("a writer who is far behind replaces nothing, and old revisions go", async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const store = await DirectoryStore.open(directory);
  for (let revision = 0; revision < 6; revision++) {
    assert.ok(await store.write("jobs", "k", `value ${revision}`, revision));
  }
  for (const behind of [0, 1, 2, 3, 4, 5]) {
    assert.equal(await store.write("jobs", "k", "late", behind), false);
  }
  assert.deepEqual(await store.get("jobs", "k"), { key: "k", value: "value 5", revision: 6 });
  assert.deepEqual((await readdir(join(directory, "jobs"))).sort(), ["k.5.json", "k.6.json"]);
});

test("who is to leave waits for no queue that is away", { timeout: 20_000 }, async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const leave = new AbortController();
  let tell = (_line: string): void => {};
  const isTold = new Promise<string>((resolve) => {
    tell = resolve;
  });
  const queue = new JobQueue(await DirectoryStore.open(directory), {
    patienceMs: Number.POSITIVE_INFINITY,
    onNews: (line) => tell(line),
  });
  await rm(directory, { recursive: true });
  const ends = Promise.all([
    queue.take(owner(), leave.signal),
    assert.rejects(queue.list(leave.signal), { name: "AbortError" }),
  ]);
  assert.match(await isTold, /cannot be reached/);
  leave.abort();
  const [taken] = await ends;
  assert.equal(taken, undefined);
});

test("a file that is too large for a record is left alone", async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const news: string[] = [];
  const queue = new JobQueue(await DirectoryStore.open(directory), {
    ...{ patienceMs: 1_000, onNews: (line: string) => news.push(line) },
  });
  const { id } = await queue.submit(fields("good"));
  await writeFile(join(directory, "jobs", "largelar.1.json"), "x".repeat(maxRecordBytes + 1));
  const held = await queue.take(owner(), new AbortController().signal);
  assert.equal(held?.job.id, id);
  assert.match(news.join("\n"), /The record largelar of the queue/);
  await assert.rejects(queue.find("largelar"), withCode("E_QUEUE_RECORD"));
});

/**
 * A write is carried out, and its answer gets lost.
 * @param meanwhile what others do before the second look
 * @param nth which one
 */
function losingAnAnswer(
  store: RecordStore,
  meanwhile: () => Promise<unknown>,
  nth = 1,
): RecordStore {
  let numWrites = 0;
  return {
    place: store.place,
    get: (...key) => store.get(...key),
    put: (...record) => store.put(...record),
    remove: (...key) => store.remove(...key),
    entries: (folder) => store.entries(folder),
    changed: (timeoutMs, signal) => store.changed(timeoutMs, signal),
    close: () => store.close(),
    write: async (...record) => {
      const isWritten = await store.write(...record);
      numWrites += 1;
      if (numWrites !== nth) return isWritten;
      await meanwhile();
      throw new LockstepError("E_QUEUE_AWAY", { place: store.place, reason: "test" });
    },
  };
}

test("a job whose submission was stored, and the answer lost, is that job", async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const [store, others] = [
    await DirectoryStore.open(directory),
    new JobQueue(await DirectoryStore.open(directory), { patienceMs: 1_000 }),
  ];
  // An agent is quicker than the second attempt.
  const submitter = losingAnAnswer(store, () => others.take(owner(), never));
  const queue = new JobQueue(submitter, { patienceMs: 10_000 });
  const { id, state } = await queue.submit(fields("lost"));
  assert.equal(state, "running");
  assert.deepEqual(
    (await others.list()).map(({ job }) => job.id),
    [id],
  );
});

test("a change whose answer was lost is made once, though others changed the job since", async () => {
  const store = await DirectoryStore.open(await mkdtemp(join(root, "q-")));
  const others = new JobQueue(store, { patienceMs: 1_000, retryMs: 1 });
  const losing = (meanwhile: () => Promise<unknown>): JobQueue =>
    new JobQueue(losingAnAnswer(store, meanwhile), { patienceMs: 1_000 });
  const first = await others.submit(fields("first"));
  // Its agent is gone, and the job is another's, and done, before it looks again.
  const taking = losing(async () => {
    assert.equal((await others.find(first.id)).job.state, "running");
    const held = await others.take({ ...owner(), instance: "other" }, never);
    assert.equal(held?.job.epoch, 2);
    assert.ok(await held.done({ step: 1, runId: null }, { step: 1, mastersSha256: null }));
  });
  const gone = { ...owner(), process: { ...thisProcess(), startTicks: 1 } };
  assert.equal(await taking.take(gone, never, { untilEmpty: true }), undefined);
  assert.equal((await others.find(first.id)).job.epoch, 2);
  const { id } = await others.submit(fields("second"));
  await others.take(owner(), never);
  const saving = losing(async () => {
    for (let i = 0; i < 5; i++) await others.askSave(id);
  });
  assert.equal((await saving.askSave(id)).savesAsked, 6);
  assert.equal((await others.find(id)).job.savesAsked, 6);
  // What was asked for since stays.
  const pausing = losing(() => others.resume(id));
  assert.equal((await pausing.ask(id, "pause")).asked, null);
  assert.equal((await others.find(id)).job.asked, null);
});

test("an agent whose answer was lost leaves the next one's signs of life", async () => {
  const store = await DirectoryStore.open(await mkdtemp(join(root, "q-")));
  const others = new JobQueue(store, { patienceMs: 1_000, retryMs: 1 });
  const { id } = await others.submit(fields("one"));
  const next = async (): Promise<void> => {
    const held = await others.take({ ...owner(), instance: "next" }, never);
    await held?.beat({ ...noProgress, step: 9 });
  };
  const agent = new JobQueue(losingAnAnswer(store, next, 2), { patienceMs: 1_000 });
  const held = await agent.take(owner(), never);
  assert.ok(await held?.stopped({ step: 3, runId: null }));
  const { job, beat } = await others.find(id);
  assert.deepEqual([job.state, job.epoch, beat?.step], ["running", 2, 9]);
});

test("who only looks makes no queue", async () => {
  const directory = join(root, "none");
  await assert.rejects(DirectoryStore.open(directory, false), withCode("E_QUEUE_UNMADE"));
  await assert.rejects(readdir(directory), { code: "ENOENT" });
  await DirectoryStore.open(directory);
  await DirectoryStore.open(directory, false);
});

test("a job that fails again and again is tried every five minutes", () => {
  const delays = [0, 1, 2, 3, 4, 5, 100].map((tries) => retryDelayMs({ tries }, 2_000));
  assert.deepEqual(delays, [0, 2_000, 8_000, 32_000, 128_000, 300_000, 300_000]);
});

test("a directory that cannot be used is told by name", async () => {
  const file = join(root, "file");
  await writeFile(file, "");
  await assert.rejects(DirectoryStore.open(join(file, "queue")), withCode("E_QUEUE_AWAY"));
});
