import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { mastersOf, type RunArguments, runJob } from "#tests/support/job-runs";
import { coordinatorOf, coordinatorsOf, descendantsOf } from "#tests/support/processes";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// `lockstep train` with reducers: its coordinator is a process, which may die.

const limit = { timeout: 240_000 };
const engine = join(packageRoot, "dist/tests/support/paced-engine.js");
/** For a run that is to be there still when a signal comes: two micro-batches a step and worker. */
const paced = { LOCKSTEP_TEST_BATCH_MS: "100" };
const processes = ["--reducer_processes", "2"];

let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    ...{ engine_module: engine, max_steps: 12, sample_prompt: null, eval_strategy: "no" },
    ...{ save_strategy: "no", eval_on_start: false, logging_steps: 4 },
  });
});
after(() => job.remove());

test("a coordinator that is killed is started again, and the run goes on", limit, async () => {
  const expected = mastersOf(await runJob(job, "train", "threads"));
  let numKilled = 0;
  const pids = new Set<number>();
  // What a start is asked for once, its restarts are not asked for.
  const args = [...processes, "--overwrite_output_dir", "true"];
  const onEvent: RunArguments[3] = (event, child) => {
    if (event.type === "worker.joined") pids.add(event.pid);
    const isDue =
      (event.type === "step.completed" && event.step === 3) ||
      (event.type === "group.leased" && event.step === 7);
    if (!isDue || numKilled > 1) return;
    numKilled += 1;
    process.kill(coordinatorOf(child.pid ?? 0), "SIGKILL");
  };
  const run = await runJob(job, "train", "killed", args, onEvent, paced);
  assert.equal(mastersOf(run), expected);
  assert.equal(numKilled, 2);
  const lines = run.of("note").map(({ text }) => text);
  const count = (pattern: RegExp): number => lines.filter((line) => pattern.test(line)).length;
  assert.equal(count(/coordinator ended \(killed by SIGKILL\); it is started again/), 2);
  assert.equal(count(/goes on where its shards are/), 2, lines.join("\n"));
  assert.equal(pids.size, 2, "workers were started again");
});

test(
  "a killed coordinator is followed where the checkpoint is gone that its run began from",
  limit,
  async () => {
    const args = [
      ...[...processes, "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "1"],
      ...["--resume_from_checkpoint", "auto"],
    ];
    let isStopped = false;
    const stop: RunArguments[3] = (event, child) => {
      if (event.type !== "step.completed" || isStopped) return;
      isStopped = true;
      child.kill("SIGINT");
    };
    const stopped = await runJob(job, "train", "rotated", args, stop, paced);
    assert.equal(stopped.code, 130, stopped.stderr);
    let isKilled = false;
    const kill: RunArguments[3] = (event, child) => {
      if (event.type !== "checkpoint.saved" || isKilled) return;
      isKilled = true;
      process.kill(coordinatorOf(child.pid ?? 0), "SIGKILL");
    };
    const run = await runJob(job, "train", "rotated", args, kill, paced);
    assert.equal(mastersOf(run), mastersOf(await runJob(job, "train", "whole")), run.stderr);
    const lines = run.of("note").map(({ text }) => text);
    assert.ok(
      lines.some((line) => /goes on where its shards are/.test(line)),
      lines.join("\n"),
    );
  },
);

test(
  "a run that listens at all addresses of a machine has reducers that can be called",
  limit,
  async () => {
    const open = ["--listen", "0.0.0.0:0", "--insecure", "true"];
    const run = await runJob(job, "train", "open", [...processes, ...open]);
    assert.equal(run.code, 0, run.stderr);
  },
);

test("a secret of the run's coordinators that was cut off is made anew", limit, async () => {
  const folder = join(job.directory, "cut", ".lockstep-claim");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "reducers.secret"), "");
  const run = await runJob(job, "train", "cut", processes);
  assert.equal(run.code, 0, run.stderr);
  assert.match(readFileSync(join(folder, "reducers.secret"), "utf8"), /^[0-9a-f]{64}$/);
});

test("workers that end for good while a coordinator starts end the run", limit, async () => {
  const pids = new Set<number>();
  let isKilled = false;
  const args = [...processes, "--max_worker_restarts", "0", "--max_steps", "100000"];
  const run = await runJob(job, "train", "forsaken", args, (event, child) => {
    if (event.type === "worker.joined") pids.add(event.pid);
    if (event.type !== "step.completed" || isKilled) return;
    isKilled = true;
    const former = coordinatorOf(child.pid ?? 0);
    process.kill(former, "SIGKILL");
    const timer = setInterval(() => {
      const started = coordinatorsOf(child.pid ?? 0).filter((pid) => pid !== former);
      if (started.length === 0) return;
      clearInterval(timer);
      // It has not asked for workers yet.
      for (const pid of pids) process.kill(pid, "SIGKILL");
    }, 5);
  });
  assert.ok(isKilled);
  assert.equal(run.code, 1, run.stderr);
  assert.match(run.stderr, /E_WORKERS_EXHAUSTED/);
});

test("a signal saves and stops all of it, and the run goes on", limit, async () => {
  let left: number[] = [];
  let isStopped = false;
  const saving = ["--max_steps", "100000", "--save_strategy", "steps", "--save_steps", "50000"];
  const run = await runJob(job, "train", "stopped", [...processes, ...saving], (event, child) => {
    if (event.type !== "step.completed" || isStopped) return;
    isStopped = true;
    left = descendantsOf(child.pid ?? 0);
    child.kill("SIGINT");
  });
  assert.equal(run.code, 130, run.stderr);
  const [saved] = run.of("checkpoint.saved");
  assert.ok(saved !== undefined && saved.step > 0);
  const alive = left.filter((pid) => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  });
  assert.deepEqual(alive, [], "processes that are left");
});

test(
  "workers that end for good while no coordinator is there end the run by name",
  limit,
  async () => {
    const pids = new Set<number>();
    let isKilled = false;
    const args = [...processes, "--max_worker_restarts", "0", "--max_steps", "100000"];
    const run = await runJob(job, "train", "alone", args, (event, child) => {
      if (event.type === "worker.joined") pids.add(event.pid);
      if (event.type !== "step.completed" || isKilled) return;
      isKilled = true;
      for (const pid of [coordinatorOf(child.pid ?? 0), ...pids]) process.kill(pid, "SIGKILL");
    });
    assert.ok(isKilled);
    assert.equal(run.code, 1, run.stderr);
    assert.match(run.stderr, /E_WORKERS_EXHAUSTED/);
  },
);
