import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { freePorts } from "#tests/support/ports";
import { runLines } from "#tests/support/run-lines";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Who takes another coordinator's place reads a checkpoint once: as its shards load it.

const limit = { timeout: 120_000 };
const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
let job: TinyJob;
let digest: string | undefined;

before(async () => {
  job = await createTinyJob({
    engine_module: engine,
    ...{ eval_on_start: false, reducer_shards: 2, max_steps: 6 },
    ...{ save_strategy: "steps", save_steps: 2 },
  });
  const whole = await lockstep(["train", ...inOutput("whole")]);
  assert.equal(whole.code, 0, whole.stderr);
  digest = whole.of("run.completed")[0]?.mastersSha256;
});
after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await job.remove();
});

const lockstep = (args: readonly string[]): Promise<CommandOutcome> =>
  lockstepCommand(args, join(job.directory, "cache"));

const inOutput = (output: string): string[] => [
  ...[job.configFile, "--json-logs", "--output_dir", join(job.directory, output)],
  ...["--metrics_port", "null"],
];

const running = new Set<ChildProcess>();

/** A worker or a reducer. */
const started = (...args: string[]): Promise<unknown> =>
  runLines(
    [process.execPath, join(packageRoot, "bin/lockstep"), ...args],
    { cwd: job.directory, env: { LOCKSTEP_CACHE: join(job.directory, "cache") } },
    (_, child) => running.add(child),
  );

/** A coordinator that takes the place of the one before it, with a worker and as many reducers. */
async function takeOver(output: string, numReducers = 0): Promise<CommandOutcome> {
  const listen = `127.0.0.1:${await freePorts(3)}`;
  const reducers = await Promise.all(
    Array.from({ length: numReducers }, async () => `127.0.0.1:${await freePorts(1)}`),
  );
  const others = reducers.map((place) =>
    started("reducer", "--listen", place, "--metrics-port", "null"),
  );
  others.push(
    started(
      ...["worker", "--use-cpu", "--metrics-port", "null", "--engine-module", engine],
      ...["--coordinator", listen],
    ),
  );
  const outcome = await lockstep([
    ...["coordinator", ...inOutput(output), "--standby", "--workers", "1", "--listen", listen],
    ...(numReducers === 0 ? [] : ["--reducers", `[${reducers.join(", ")}]`]),
  ]);
  for (const child of running) child.kill("SIGKILL");
  await Promise.all(others);
  return outcome;
}

/** A run of which checkpoints are left, some of them with a bit that flipped. */
async function leftRun(output: string, damagedSteps: readonly number[]): Promise<void> {
  const directory = join(job.directory, output);
  await cp(join(job.directory, "whole"), directory, { recursive: true });
  rmSync(join(directory, "model.safetensors"));
  rmSync(join(directory, "lockstep-run.json"));
  for (const step of damagedSteps) {
    const name = "lockstep/optimizer-00002-of-00002.safetensors";
    const file = join(directory, `checkpoint-${step}`, name);
    const bytes = readFileSync(file);
    bytes[bytes.length - 5] = (bytes.at(-5) ?? 0) ^ 1;
    writeFileSync(file, bytes);
  }
}

const passedOver =
  /passed over: .*checkpoint-6 is damaged: lockstep.optimizer-00002-of-00002.safetensors has a wrong checksum of its bytes \d+ to \d+\. The run goes on from checkpoint-4\./;

for (const [where, numReducers] of [
  ["threads", 0],
  ["processes", 2],
] as const) {
  test(
    `a damaged checkpoint is passed over by shards in ${where} that read it`,
    limit,
    async () => {
      await leftRun(where, [6]);
      const outcome = await takeOver(where, numReducers);
      assert.equal(outcome.code, 0, outcome.stderr);
      const notes = outcome.of("note").map(({ text }) => text);
      assert.ok(
        notes.some((text) => passedOver.test(text)),
        notes.join("\n"),
      );
      assert.deepEqual(
        outcome.of("run.resumed").map(({ step }) => step),
        [4],
      );
      assert.equal(outcome.of("run.completed")[0]?.mastersSha256, digest);
    },
  );
}

test("where none is whole the run ends by the file's name", limit, async () => {
  await leftRun("none", [2, 4, 6]);
  const outcome = await takeOver("none");
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /E_CHECKPOINT_DAMAGED.*checkpoint-2 is damaged/);
  assert.deepEqual(outcome.of("step.completed"), []);
});
