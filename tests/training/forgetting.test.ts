import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { generalLossWords } from "#lib/core/forgetting";
import { runJob } from "#tests/support/job-runs";
import type { CommandOutcome } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A general set that holds the rows of the validation set has its losses: what is measured is known from elsewhere.

let job: TinyJob;
before(async () => {
  job = await createTinyJob();
});
after(() => job.remove());

const text = (seed: number): string => join(job.directory, `${seed}.txt`);
const settings = (): string[] => [
  ...["--general-dataset", text(1), "--general-eval-dataset", text(4)],
  ...["--eval-strategy", "steps", "--eval-steps", "2"],
];
const saving = ["--save-strategy", "steps", "--save-steps", "2"];

interface History {
  readonly log_history: readonly Readonly<Record<string, number>>[];
}

async function historyOf(name: string): Promise<History["log_history"]> {
  const file = join(job.directory, name, "trainer_state.json");
  return (JSON.parse(await readFile(file, "utf8")) as History).log_history;
}

/** The general figures of a history, by step. */
const generalOf = (history: History["log_history"]) =>
  history
    .filter((entry) => "eval_general_loss" in entry)
    .map(({ step, eval_general_loss: loss, eval_general_forgotten: forgotten }) => ({
      ...{ step, loss, forgotten },
    }));

function assertFigures(history: History["log_history"]): void {
  const general = generalOf(history);
  assert.deepEqual(
    general.map(({ step }) => step),
    [0, 2, 4, 6],
  );
  const losses = history.flatMap(({ eval_loss: loss }) => (loss === undefined ? [] : [loss]));
  assert.deepEqual(
    general.map(({ loss }) => loss),
    losses,
  );
  assert.equal(general[0]?.forgotten, undefined);
  for (const { loss = 0, forgotten } of general.slice(1)) {
    assert.equal(forgotten, loss - (losses[0] ?? 0));
  }
}

test("general losses before, between and after the steps are those of the rows, in a cluster and in one process", async () => {
  const cluster = await runJob(job, "train", "cluster", [...settings(), ...saving]);
  assert.equal(cluster.code, 0, cluster.stderr);
  const history = await historyOf("cluster");
  assertFigures(history);
  const told = (of: CommandOutcome["of"]) => {
    const evaluations = of("evaluation.completed").map(({ step, loss }) => ({ step, loss }));
    const general = of("general.evaluated").map(({ step, loss }) => ({ step, loss }));
    assert.deepEqual(general, evaluations);
    const [first] = general;
    for (const figure of of("general.evaluated").slice(1)) assert.equal(figure.before, first?.loss);
  };
  told(cluster.of);

  const local = await runJob(job, "train-local", "local", settings());
  assert.equal(local.code, 0, local.stderr);
  assert.deepEqual(generalOf(await historyOf("local")), generalOf(history));
  const [first, last] = [generalOf(history)[0], generalOf(history).at(-1)];
  const lastFigure = { step: 6, loss: last?.loss ?? 0, before: first?.loss ?? 0 };
  assert.ok(local.lines.includes(generalLossWords(lastFigure)), local.lines.join("\n"));
});

test("a run that goes on has the figure of before its first step", async () => {
  const checkpoint = join(job.directory, "cluster", "checkpoint-2");
  const resuming = [...settings(), ...saving, "--resume-from-checkpoint", checkpoint];
  const resumed = await runJob(job, "train", "resumed", resuming);
  assert.equal(resumed.code, 0, resumed.stderr);
  assertFigures(await historyOf("resumed"));
  const [before] = resumed.of("run.resumed");
  assert.deepEqual(
    before?.general?.map(({ step }) => step),
    [0, 2],
  );
  assert.deepEqual(
    resumed.of("general.evaluated").map(({ step, before: was }) => [step, was]),
    [
      [4, before?.general?.[0]?.loss],
      [6, before?.general?.[0]?.loss],
    ],
  );
  const other = [...settings().slice(0, 2), "--general-eval-dataset", text(3), ...saving];
  const refused = await runJob(job, "train", "other", [
    ...other,
    ...["--resume-from-checkpoint", checkpoint],
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /E_RESUME_MISMATCH.*the general validation data had SHA-256/);
});

test("without a validation set or evaluations on the way there are the figures of both ends", async () => {
  const alone = await runJob(job, "train", "alone", [
    ...["--general-dataset", text(1), "--eval-dataset", "null", "--validation-split", "0"],
    ...["--general-eval-dataset", text(4), "--eval-on-start", "false"],
  ]);
  assert.equal(alone.code, 0, alone.stderr);
  assert.deepEqual(
    generalOf(await historyOf("alone")).map(({ step }) => step),
    [0, 6],
  );
});

test("the words say what was before, what is now, and the difference", () => {
  assert.equal(generalLossWords({ step: 0, loss: 3.41 }), "general loss 3.4100 (perplexity 30.27)");
  assert.equal(
    generalLossWords({ step: 9, loss: 3.77, before: 3.41 }),
    "general loss 3.7700 (perplexity 43.38), 3.4100 before: +0.3600 forgotten",
  );
  assert.match(
    generalLossWords({ step: 9, loss: 3.31, before: 3.41 }),
    /: -0\.1000, nothing forgotten$/,
  );
});
