import assert from "node:assert/strict";
import { renameSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { newRunRecord, writeOutputRecord } from "#lib/checkpoint/run-record";
import { DirectoryStore } from "#lib/queue/directory-store";
import type { JobRequest } from "#lib/queue/job";
import { JobQueue } from "#lib/queue/job-queue";
import { QueueAgent } from "#run/queue-agent";
import { fields } from "#tests/queue/suite";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lockstep-agent-"));
});
after(() => rm(root, { recursive: true, force: true }));

/** A run that saves for longer than the agent's grace period. */
const slowToEnd = `
  process.on("SIGTERM", () => setTimeout(() => process.exit(143), 1_000));
  setInterval(() => {}, 1_000);
  console.log(JSON.stringify({ type: "note", text: "begun" }));
`;

/** What an agent says whose job is asked for something once it runs. */
async function saidAfter(request: JobRequest): Promise<{ said: string; state: string }> {
  const directory = await mkdtemp(join(root, "q-"));
  const open = async (): Promise<JobQueue> =>
    new JobQueue(await DirectoryStore.open(directory), { patienceMs: 10_000 });
  const queue = await open();
  const { id } = await queue.submit(fields("slow", { outputDir: join(directory, "out") }));
  const said: string[] = [];
  const agent = new QueueAgent(await open(), {
    ...{ name: "agent", leaseMs: 1_200, graceMs: 50, directory: join(directory, "work") },
    ...{
      command: [process.execPath, "-e", slowToEnd],
      flags: () => [],
      without: new Set<string>(),
    },
    ...{ maxJobs: 1, untilEmpty: true },
    onLine: (line) => {
      said.push(line);
      if (line.endsWith("begun")) void queue.ask(id, request);
    },
  });
  assert.equal(await agent.run(new AbortController().signal), 1);
  return { said: said.join("\n"), state: (await queue.find(id)).job.state };
}

test("a run that is paused is not killed while it saves", async () => {
  const { said, state } = await saidAfter("pause");
  assert.match(said, /pause was asked for: the run is stopped/);
  assert.doesNotMatch(said, /is killed/);
  assert.equal(state, "paused");
});

test("a run that is cancelled is killed after the grace period", async () => {
  const { said, state } = await saidAfter("cancel");
  assert.match(said, /did not end within 0.05 s, and is killed/);
  assert.equal(state, "cancelled");
});

test("a machine that cannot run a job leaves it to the others, with all its tries", async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const open = async (): Promise<JobQueue> =>
    new JobQueue(await DirectoryStore.open(directory), { patienceMs: 10_000 });
  const queue = await open();
  const there = await queue.submit(fields("there", { outputDir: join(directory, "there") }));
  const gone = join(directory, "not-mounted");
  const elsewhere = await queue.submit(fields("elsewhere", { directory: gone, priority: 9 }));
  const said: string[] = [];
  await mkdir(join(directory, "there"));
  const mastersSha256 = "ab".repeat(32);
  await writeOutputRecord(join(directory, "there"), {
    ...newRunRecord({
      ...{ settings: {}, dataSettings: {}, data: { training: "", validation: null } },
      base: { weights: "", config: {} },
    }),
    finished: { step: 7, totalSteps: 7, mastersSha256, fileBytes: {}, settings: {} },
    files: [],
  });
  const agent = new QueueAgent(await open(), {
    ...{ name: "bare", leaseMs: 1_200, graceMs: 50, directory: join(directory, "work") },
    ...{ command: [process.execPath, "-e", ""], flags: () => [], without: new Set<string>() },
    ...{ maxJobs: undefined, untilEmpty: true, onLine: (line) => said.push(line) },
  });
  assert.equal(await agent.run(new AbortController().signal), 1, said.join("\n"));
  const ended = (await queue.find(there.id)).job;
  assert.equal(ended.state, "done");
  // A run that had nothing left to do says nothing of its result: its output directory does.
  assert.deepEqual(ended.result, { step: 7, mastersSha256 });
  const { state, tries, error } = (await queue.find(elsewhere.id)).job;
  assert.deepEqual([state, tries], ["queued", 0]);
  assert.match(error ?? "", /^agent bare: this machine has no directory .*not-mounted/);
});

test("a run that somebody stops itself is not begun again by the queue", async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const open = async (): Promise<JobQueue> =>
    new JobQueue(await DirectoryStore.open(directory), { patienceMs: 10_000 });
  const queue = await open();
  const { id } = await queue.submit(fields("stopped", { outputDir: join(directory, "out") }));
  const step = { type: "step.completed", step: 3, totalSteps: 9, loss: 1 };
  // As `lockstep train` ends after `lockstep control RUN stop`.
  const stopped = `console.log(${JSON.stringify(JSON.stringify(step))}); process.exitCode = 130`;
  const agent = new QueueAgent(await open(), {
    ...{ name: "agent", leaseMs: 1_200, graceMs: 50, directory: join(directory, "work") },
    ...{ command: [process.execPath, "-e", stopped], flags: () => [], without: new Set<string>() },
    ...{ maxJobs: undefined, untilEmpty: true, onLine: () => {} },
  });
  assert.equal(await agent.run(new AbortController().signal), 1);
  const { state, step: last, tries, error } = (await queue.find(id)).job;
  assert.deepEqual([state, last, tries], ["paused", 3, 0]);
  assert.match(error ?? "", /somebody stopped its run/);
  assert.equal((await queue.resume(id)).state, "queued");
});

test("an agent that leaves waits no longer than its grace period for a queue that is away", {
  timeout: 60_000,
}, async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const place = join(directory, "queue");
  const open = async (): Promise<JobQueue> =>
    new JobQueue(await DirectoryStore.open(place), { patienceMs: Number.POSITIVE_INFINITY });
  await (await open()).submit(fields("left", { outputDir: join(directory, "out") }));
  const leave = new AbortController();
  const said: string[] = [];
  const agent = new QueueAgent(await open(), {
    ...{ name: "agent", leaseMs: 1_200, graceMs: 300, directory: join(directory, "work") },
    command: [process.execPath, "-e", "console.log('begun'); setInterval(() => {}, 1_000)"],
    ...{ flags: () => [], without: new Set<string>() },
    ...{ maxJobs: undefined, untilEmpty: false },
    onLine: (line) => {
      said.push(line);
      if (!line.endsWith("begun")) return;
      // Whole at once, also while a sign of life is written.
      renameSync(place, join(directory, "elsewhere"));
      leave.abort();
    },
  });
  assert.equal(await agent.run(leave.signal), 1);
  assert.match(said.join("\n"), /the queue could not be told within 0.3 s/);
});

test("the queue knows of the first step of a run at once, however long the lease", {
  timeout: 60_000,
}, async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const open = async (): Promise<JobQueue> =>
    new JobQueue(await DirectoryStore.open(directory), { patienceMs: 10_000 });
  const queue = await open();
  const { id } = await queue.submit(fields("begun", { outputDir: join(directory, "out") }));
  const leave = new AbortController();
  const step = { type: "step.completed", step: 41, totalSteps: 90, loss: 1 };
  const run = `console.log(${JSON.stringify(JSON.stringify(step))}); setInterval(() => {}, 1_000)`;
  const agent = new QueueAgent(await open(), {
    ...{ name: "agent", leaseMs: 3_600_000, graceMs: 50, directory: join(directory, "work") },
    ...{ command: [process.execPath, "-e", run], flags: () => [], without: new Set<string>() },
    ...{ maxJobs: undefined, untilEmpty: false, onLine: () => {} },
  });
  const ended = agent.run(leave.signal);
  while ((await queue.find(id)).beat?.step !== 41);
  leave.abort();
  assert.equal(await ended, 1);
});
