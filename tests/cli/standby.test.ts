import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { freePorts } from "#tests/support/processes";
import { type LinesOutcome, runLines } from "#tests/support/run-lines";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Two coordinators of one output directory, and workers that know the addresses of both.

const limit = { timeout: 240_000 };
const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
const maxSteps = 30;
/** A standby takes 10 s at most where a processor is free; here others run beside it. */
const takeoverMs = 30_000;

let job: TinyJob;
let expected: string;
const running = new Set<ChildProcess>();

before(async () => {
  job = await createTinyJob({
    ...{ engine_module: engine, max_steps: maxSteps, sample_prompt: null, eval_strategy: "no" },
    ...{ save_strategy: "steps", save_steps: 4, logging_steps: 10, eval_on_start: false },
  });
  expected = mastersOf(await runJob(job, "train", "undisturbed"));
});
after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await job.remove();
});

const lockstep = (
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> => lockstepCommand(args, join(job.directory, "cache"), onEvent);

const coordinator = (
  name: string,
  listen: string,
  args: readonly string[],
  onEvent: NonNullable<Parameters<typeof lockstepCommand>[2]>,
): Promise<CommandOutcome> =>
  lockstep(
    [
      ...["coordinator", job.configFile, "--json-logs", "--standby", "--listen", listen],
      ...["--metrics_port", "null", "--output_dir", join(job.directory, name), ...args],
    ],
    (event, child) => {
      running.add(child);
      onEvent(event, child);
    },
  );

/** A worker or a reducer. */
const started = (args: readonly string[]): Promise<LinesOutcome> =>
  runLines(
    [process.execPath, join(packageRoot, "bin/lockstep"), ...args],
    { cwd: job.directory, env: { LOCKSTEP_CACHE: join(job.directory, "cache") } },
    (_, child) => running.add(child),
  );

for (const [signal, shards] of [
  ["SIGKILL", "threads"],
  ["SIGSTOP", "threads"],
  ["SIGSTOP", "reducers"],
] as const) {
  test(`a standby goes on with the run of one that got ${signal}: ${shards}`, limit, async () => {
    const name = `${signal}-${shards}`;
    const places =
      shards === "threads"
        ? []
        : await Promise.all([1, 2].map(async () => `127.0.0.1:${await freePorts(1)}`));
    const args = places.length === 0 ? [] : ["--reducers", `[${places.join(", ")}]`];
    const reducers = places.map((place) =>
      started(["reducer", "--listen", place, "--metrics-port", "null"]),
    );
    const addresses = await Promise.all([1, 2].map(async () => `127.0.0.1:${await freePorts(3)}`));
    const [one = "", other = ""] = addresses;
    let stopped: ChildProcess | undefined;
    let [stoppedAtMs, tookMs] = [0, 0];
    let isSaved = false;
    let standsBy = (): void => {};
    const standing = new Promise<void>((resolve) => {
      standsBy = resolve;
    });
    let leads = (): void => {};
    const leading = new Promise<void>((resolve) => {
      leads = resolve;
    });
    const first = coordinator(name, one, args, (event, child) => {
      if (event.type === "phase.changed") leads();
      if (event.type === "checkpoint.saved") isSaved = true;
      if (event.type !== "step.completed" || !isSaved || stopped !== undefined) return;
      stopped = child;
      void standing.then(() => {
        stoppedAtMs = performance.now();
        child.kill(signal);
      });
    });
    await leading;
    const second = coordinator(name, other, args, (event) => {
      if (event.type === "note" && /stands by/.test(event.text)) standsBy();
      if (event.type === "run.started" && tookMs === 0) tookMs = performance.now() - stoppedAtMs;
    });
    await standing;
    const workers = [1, 2].map(() =>
      started([
        ...["worker", "--use-cpu", "--metrics-port", "null", "--engine-module", engine],
        ...["--coordinator", addresses.join(",")],
      ]),
    );
    const took = await second;
    assert.equal(mastersOf(took), expected);
    assert.ok(tookMs > 0 && tookMs < takeoverMs, `took over after ${Math.round(tookMs)} ms`);
    assert.ok((took.of("step.completed")[0]?.step ?? 0) > 1, "it began anew");
    for (const { code, text } of await Promise.all(workers)) assert.equal(code, 0, text);
    stopped?.kill("SIGCONT");
    const { code, stderr } = await first;
    if (signal === "SIGKILL") return;
    assert.equal(code, 76, stderr);
    assert.match(stderr, /E_OUTPUT_DIR_LOST|E_STALE_COORDINATOR/);
    for (const { code: ended, text } of await Promise.all(reducers)) {
      assert.equal(ended, 0);
      assert.match(text, new RegExp(`is over: ${maxSteps} updates made`));
    }
  });
}
