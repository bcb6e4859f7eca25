import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { readTrainerState } from "#lib/checkpoint/index";
import { RandomStream } from "#lib/core/random";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { freePorts } from "#tests/support/ports";
import { type LinesOutcome, runLines } from "#tests/support/run-lines";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Coordinators of one run are killed one after the other; reducers and workers, in processes of their own, live on.

const limit = { timeout: 1_800_000 };
/** LOCKSTEP_REAL_ENGINE=1 computes with the one that people train with. */
const engine =
  process.env["LOCKSTEP_REAL_ENGINE"] === "1"
    ? undefined
    : join(packageRoot, "dist/tests/support/paced-engine.js");
/** In one run; LOCKSTEP_COORDINATOR_DEATHS=40 is the long version. */
const numDeaths = Number(process.env["LOCKSTEP_COORDINATOR_DEATHS"] ?? 3);
const seed = Number(process.env["LOCKSTEP_SEED"] ?? 1);
const maxSteps = 6 * numDeaths + 4;

let job: TinyJob;
let expected: CommandOutcome;
const running = new Set<ChildProcess>();

before(async () => {
  job = await createTinyJob({
    ...(engine === undefined ? {} : { engine_module: engine }),
    ...{ max_steps: maxSteps, eval_strategy: "steps", eval_steps: 5 },
    ...{ save_strategy: "steps", save_steps: 4, save_total_limit: 2, logging_steps: 3 },
    ...{ metrics_port: null, reducer_timeout_ms: 20_000 },
  });
  expected = await runJob(job, "train", "undisturbed");
});
after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await job.remove();
});

const lockstep = (
  args: readonly string[],
  onEvent: NonNullable<Parameters<typeof lockstepCommand>[2]> = () => {},
): Promise<CommandOutcome> =>
  lockstepCommand(args, join(job.directory, "cache"), (event, child) => {
    running.add(child);
    onEvent(event, child);
  });

/** A worker or a reducer. */
const started = (args: readonly string[]): Promise<LinesOutcome> => {
  // A coordinator is to be there still when its signal comes.
  const env = { LOCKSTEP_CACHE: join(job.directory, "cache"), LOCKSTEP_TEST_BATCH_MS: "50" };
  return runLines(
    [process.execPath, join(packageRoot, "bin/lockstep"), ...args],
    { cwd: job.directory, env },
    (_, child) => running.add(child),
  );
};

/** The history that a run left, without what clocks have a part in. */
async function historyOf(name: string): Promise<unknown> {
  const { log_history } = await readTrainerState(join(job.directory, name));
  return log_history.map((entry) =>
    Object.entries(entry).filter(([key]) => !/runtime|per_second/.test(key)),
  );
}

test("no step is lost and none made twice where coordinators are killed", limit, async () => {
  const random = new RandomStream(seed, "test", 0);
  const [one = 0, other = 0, listen = 0] = await Promise.all([1, 2, 3].map(() => freePorts(1)));
  const reducers = [one, other].map((port) =>
    started(["reducer", "--listen", `127.0.0.1:${port}`, "--metrics-port", "null"]),
  );
  const workers = [1, 2].map(() =>
    started([
      ...["worker", "--use-cpu", "--metrics-port", "null"],
      ...(engine === undefined ? [] : ["--engine-module", engine]),
      ...["--coordinator", `127.0.0.1:${listen}`],
    ]),
  );
  const lives: CommandOutcome[] = [];
  for (let death = 0; ; death++) {
    // Events of a step are its leases, groups, completion, evaluations and saves.
    let left = death < numDeaths ? 1 + random.nextBelow(14) : Number.POSITIVE_INFINITY;
    const waitMs = random.nextBelow(20);
    let hasBegun = false;
    const life = await lockstep(
      [
        ...["coordinator", job.configFile, "--json-logs", "--listen", `127.0.0.1:${listen}`],
        ...["--reducers", `[127.0.0.1:${one}, 127.0.0.1:${other}]`],
        ...["--output_dir", join(job.directory, "killed")],
      ],
      (event, child) => {
        if (event.type === "group.leased") hasBegun = true;
        if (!hasBegun || --left !== 0) return;
        setTimeout(() => child.kill("SIGKILL"), waitMs);
      },
    );
    lives.push(life);
    if (life.code !== null) break;
  }
  const last = lives.at(-1) as CommandOutcome;
  assert.equal(mastersOf(last), mastersOf(expected));
  assert.equal(lives.length, numDeaths + 1);
  for (const { of, stderr } of lives.slice(1)) {
    const lines = of("note").map(({ text }) => text);
    assert.ok(
      lines.some((line) => /goes on where its shards are/.test(line)),
      `${lines.join("\n")}${stderr}`,
    );
  }
  // Every step was told of, and what one died with in its hands by the next one.
  const steps = new Map<number, number>();
  for (const { of } of lives) {
    for (const { step, loss } of of("step.completed")) steps.set(step, loss);
  }
  assert.deepEqual(
    [...steps].sort(([a], [b]) => a - b),
    expected.of("step.completed").map(({ step, loss }) => [step, loss]),
  );
  const logs = await Promise.all(reducers);
  for (const { code, text } of logs) {
    assert.equal(code, 0, text);
    const [, made] = /is over: (\d+) updates made/.exec(text) ?? [];
    assert.equal(Number(made), maxSteps, text);
  }
  for (const { code, text } of await Promise.all(workers)) assert.equal(code, 0, text);
  assert.deepEqual(await historyOf("killed"), await historyOf("undisturbed"));
  console.log(`${numDeaths} deaths in ${maxSteps} steps`);
});
