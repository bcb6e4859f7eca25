import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { freePorts } from "#tests/support/ports";
import { type LinesOutcome, runLines } from "#tests/support/run-lines";
import type { TinyJob } from "#tests/support/tiny-job";
import { createJobOfTwo, stepsOfTwo, takeOver } from "#tests/support/two-coordinators";

// Two coordinators of one output directory, and workers that know the addresses of both.

const limit = { timeout: 240_000 };

let job: TinyJob;
let expected: string;
const running = new Set<ChildProcess>();

before(async () => {
  job = await createJobOfTwo();
  expected = mastersOf(await runJob(job, "train", "undisturbed"));
});
after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await job.remove();
});

const reducer = (place: string): Promise<LinesOutcome> =>
  runLines(
    [
      ...[process.execPath, join(packageRoot, "bin/lockstep"), "reducer"],
      ...["--listen", place, "--metrics-port", "null"],
    ],
    { cwd: job.directory, env: { LOCKSTEP_CACHE: join(job.directory, "cache") } },
    (_, child) => running.add(child),
  );

for (const [signal, shards] of [
  ["SIGKILL", "threads"],
  ["SIGSTOP", "threads"],
  ["SIGSTOP", "reducers"],
] as const) {
  test(`a standby goes on with the run of one that got ${signal}: ${shards}`, limit, async () => {
    const places =
      shards === "threads"
        ? []
        : await Promise.all([1, 2].map(async () => `127.0.0.1:${await freePorts(1)}`));
    const reducers = places.map(reducer);
    const { struck, first } = await takeOver({
      ...{ job, expected, running, name: `${signal}-${shards}`, standsBy: /stands by/ },
      // Others run beside it.
      withinMs: 30_000,
      args: () => (places.length === 0 ? [] : ["--reducers", `[${places.join(", ")}]`]),
      strike: (child) => void child.kill(signal),
    });
    struck.kill("SIGCONT");
    const { code, stderr } = await first;
    if (signal === "SIGKILL") return;
    assert.equal(code, 76, stderr);
    assert.match(stderr, /E_OUTPUT_DIR_LOST|E_STALE_COORDINATOR/);
    for (const { code: ended, text } of await Promise.all(reducers)) {
      assert.equal(ended, 0);
      assert.match(text, new RegExp(`is over: ${stepsOfTwo} updates made`));
    }
  });
}
