import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readTrainerState } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Threads of shards that end in the middle of a run, in the real command.

const limit = { timeout: 240_000 };
let job: TinyJob;
let undisturbed: CommandOutcome;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ reducer_shards: 2, max_steps: 8, save_strategy: "steps", save_steps: 3 },
    ...{ logging_steps: 1, eval_strategy: "steps", eval_steps: 2 },
  });
  undisturbed = await train("undisturbed", "");
});
after(() => job.remove());

const outputOf = (name: string): string => join(job.directory, name);

/** @param crashes as of tests/support/shard-crash.ts */
const train = (
  name: string,
  crashes: string,
  args: readonly string[] = [],
): Promise<CommandOutcome> =>
  lockstepCommand(
    ["train", job.configFile, "--json-logs", "--output_dir", outputOf(name), ...args],
    join(job.directory, "cache"),
    () => {},
    {
      NODE_OPTIONS: `--import ${new URL("../support/shard-crash.js", import.meta.url).href}`,
      LOCKSTEP_TEST_SHARD_CRASH: crashes,
    },
  );

/** What a run ended with, and what its history tells. */
async function resultOf(name: string, outcome: CommandOutcome): Promise<unknown> {
  assert.equal(outcome.code, 0, outcome.stderr);
  const { log_history } = await readTrainerState(outputOf(name));
  const figures = log_history.map(({ step, loss, grad_norm, eval_loss }) => [
    ...[step, loss, grad_norm, eval_loss],
  ]);
  const log = await readFile(join(outputOf(name), "trainer_log.jsonl"), "utf8");
  const lines = log.split("\n").map((line) => /"current_steps": \d+/.exec(line)?.[0]);
  return [outcome.of("run.completed")[0]?.mastersSha256, figures, lines];
}

const stepsOf = (outcome: CommandOutcome): readonly number[] =>
  outcome.of("step.completed").map(({ step }) => step);

test(
  "a shard that ends after a checkpoint takes all shards back to it, and the bits stay",
  limit,
  async () => {
    const outcome = await train("after", "1:apply:6", ["--min_workers", "2"]);
    assert.deepEqual(await resultOf("after", outcome), await resultOf("undisturbed", undisturbed));
    assert.deepEqual(stepsOf(outcome), [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]);
    const [lost] = outcome.of("shard.lost");
    assert.equal(lost?.shard, 1);
    const [back, ...others] = outcome.of("shards.rolledBack");
    const directory = join(outputOf("after"), "checkpoint-3");
    assert.deepEqual([back?.step, back?.numSteps, back?.directory], [3, 2, directory]);
    assert.deepEqual(others, []);
    assert.match(
      outcome
        .of("note")
        .map(({ text }) => text)
        .join("\n"),
      /Reducer shard 1 failed: exit code 3\..* go back to checkpoint-3; 2 steps are made again \(1 of 3/,
    );
    // The same workers take part again, and nobody was lost.
    const joined = outcome.of("worker.joined").map(({ workerId, pid }) => `${workerId} ${pid}`);
    assert.deepEqual([joined.length, new Set(joined).size], [4, 2]);
    assert.deepEqual(outcome.of("worker.lost"), []);
  },
);

test("before the first checkpoint the run begins anew", limit, async () => {
  const outcome = await train("anew", "0:reduce:3 1:openStep:1");
  assert.deepEqual(await resultOf("anew", outcome), await resultOf("undisturbed", undisturbed));
  assert.deepEqual(
    outcome.of("shards.rolledBack").map(({ step, numSteps }) => [step, numSteps]),
    [
      [0, 2],
      [0, 0],
    ],
  );
  assert.deepEqual(stepsOf(outcome), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
});

test(
  "a shard that is lost again and again ends the run, which says how to go on",
  limit,
  async () => {
    const outcome = await train("again", "1:apply:5 1:apply:5 1:apply:1+");
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /E_SHARD_FAILED/);
    // A new checkpoint gives the three times back.
    assert.deepEqual(
      outcome.of("shards.rolledBack").map(({ step }) => step),
      [3, 6, 6, 6],
    );
  },
);

test("max_rollbacks: 0 ends the run at once, and what was saved is kept", limit, async () => {
  const outcome = await train("never", "1:apply:6", ["--max_rollbacks", "0"]);
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /E_SHARD_FAILED/);
  assert.deepEqual(outcome.of("shards.rolledBack"), []);
  assert.ok(existsSync(join(outputOf("never"), "checkpoint-3", "lockstep", "state.json")));
});
