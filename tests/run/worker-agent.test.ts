import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { thisProcess } from "#lib/core/process-identity";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";
import { WorkerAgent } from "#run/worker-agent";
import { fields } from "#tests/queue/suite";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lockstep-workers-"));
});
after(() => rm(root, { recursive: true, force: true }));

test("a run that takes no worker of this machine keeps it from no other run", {
  timeout: 60_000,
}, async () => {
  const open = async (): Promise<JobQueue> =>
    new JobQueue(await DirectoryStore.open(join(root, "queue")), { patienceMs: 10_000 });
  const queue = await open();
  const owner = { agent: "a", instance: "b", host: "here", process: thisProcess() };
  const ids: string[] = [];
  for (const name of ["first", "second"]) {
    await queue.submit(fields(name));
    const held = await queue.take({ ...owner, leaseMs: 600_000 }, new AbortController().signal);
    assert.ok(held !== undefined);
    ids.push(held.job.id);
    await held.beat({
      ...{ step: 1, totalSteps: 9, loss: null, runId: null },
      ...{ address: "127.0.0.1:1", workers: { least: 1, planned: 2, most: null, joined: 0 } },
    });
  }
  const leave = new AbortController();
  const joined: string[] = [];
  const agent = new WorkerAgent(await open(), {
    // Its worker ends at once, as one does that a coordinator refuses.
    ...{ name: "w", flags: ["--no-such-option"], graceMs: 100 },
    ...{ maxJobs: undefined, untilEmpty: false },
    onLine: (line) => {
      if (line.includes("joins its run")) joined.push(line.slice(0, 8));
      if (joined.length === 2) leave.abort();
    },
  });
  await agent.run(leave.signal);
  assert.deepEqual(joined.sort(), ids.sort());
});
