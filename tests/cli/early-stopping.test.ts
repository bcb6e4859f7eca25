import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import type { CommandOutcome } from "#tests/support/lockstep-command";
import { readTensors } from "#tests/support/read-tensors";
import { countingUpdates } from "#tests/support/scripted-engine";

// Evaluations by a script, on an engine whose weights are the number of the step.

const settings = {
  engine_module: join(packageRoot, "dist/tests/support/scripted-engine.js"),
  ...countingUpdates,
  ...{ workers: 2, per_device_train_batch_size: 1, max_steps: 12 },
  ...{ validation_split: 2, eval_strategy: "steps", eval_steps: 2, eval_on_start: true },
  ...{ early_stopping_patience: 2, load_best_model_at_end: true },
};
/** After step 4 nothing is better: evaluations after 2, 4, 6 and 8, and there it ends. */
const losses = "1,9,3,9,2,9,2.5,9,2.25,9,1,9,0.5";
const told = ({ events }: CommandOutcome): string =>
  events
    .flatMap((event) =>
      event.type === "note" ? [event.text] : event.type === "run.started" ? event.dataLines : [],
    )
    .join("\n");

async function scriptedJob(t: TestContext, evalLosses: string, trainLosses = "1") {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const environment = {
    LOCKSTEP_TEST_EVAL_LOSSES: evalLosses,
    LOCKSTEP_TEST_TRAIN_LOSSES: trainLosses,
  };
  const lockstep: CaseJob["lockstep"] = (args, onEvent) => job.lockstep(args, onEvent, environment);
  return { ...job, lockstep };
}

const saving = ["--json-logs", "--save_strategy", "steps", "--save_steps", "2"];

async function trainerState(job: CaseJob, directory: string) {
  const text = await readFile(job.file(`${directory}/trainer_state.json`), "utf8");
  return JSON.parse(text) as {
    readonly global_step: number;
    readonly max_steps: number;
    readonly best_global_step: number;
    readonly best_metric: number;
    readonly stateful_callbacks: Readonly<
      Record<string, { readonly args: unknown; readonly attributes: unknown }>
    >;
    readonly log_history: readonly Readonly<Record<string, number>>[];
  };
}

/** Whether every weight that a directory holds is this number. */
async function assertWeights(
  job: CaseJob,
  directory: string,
  step: number,
  file = "model.safetensors",
): Promise<void> {
  const { tensors } = await readTensors(job.file(`${directory}/${file}`));
  assert.ok(tensors.size > 4);
  for (const [name, { data }] of tensors) {
    assert.ok(
      data.every((value) => value === step),
      `${name} of ${directory}: ${data[0]}, not ${step}`,
    );
  }
}

/** The loss that the result's files tell of the weights beside them. */
async function resultLoss(job: CaseJob, directory: string): Promise<unknown> {
  const [evaluated, all] = await Promise.all(
    ["eval_results.json", "all_results.json"].map(async (name) => {
      const text = await readFile(job.file(`${directory}/${name}`), "utf8");
      return (JSON.parse(text) as Readonly<Record<string, unknown>>)["eval_loss"];
    }),
  );
  assert.equal(evaluated, all);
  return evaluated;
}

test("evaluations that are no better end a run, in one process, in a cluster and in a resumed run", async (t) => {
  const job = await scriptedJob(t, losses);
  const file = await job.writeJob(settings);
  const local = await job.lockstep(["train-local", file, "--output_dir", "local"]);
  assert.equal(local.code, 0, local.stderr);
  const digest = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
  const why =
    "stops early after step 8 of 12: the last 2 evaluations were not better than the best before " +
    "(early_stopping_patience); the best eval_loss is 2, of step 4";
  assert.ok(local.lines.includes(why), local.lines.join("\n"));
  assert.ok(local.lines.includes("writing the best model, that of step 4"));

  const train = ["train", file, ...saving];
  const cluster = await job.lockstep([...train, "--output_dir", "cluster"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.ok(told(cluster).includes(why), told(cluster));
  const [completed] = cluster.of("run.completed");
  assert.equal(completed?.mastersSha256, digest);
  assert.equal(completed?.outcome, "finished");
  assert.equal(completed?.step, 8);
  assert.match(completed?.stoppedEarly ?? "", /the best eval_loss is 2, of step 4/);
  assert.equal(completed?.bestStep, 4);

  const one = await job.lockstep(
    [...train, "--output_dir", "one", "--workers", "1"].concat([
      ...["--gradient_groups", "2", "--global_batch_size", "2"],
    ]),
  );
  assert.equal(one.of("run.completed")[0]?.mastersSha256, digest, one.stderr);
  assert.equal(one.of("run.completed")[0]?.step, 8);

  // The one that stopped while the counter was 1.
  const from = ["--resume_from_checkpoint", "cluster/checkpoint-6"];
  const resumed = await job.lockstep([...train, "--output_dir", "again", ...from]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.ok(told(resumed).includes(why));
  assert.equal(resumed.of("run.completed")[0]?.mastersSha256, digest);

  for (const directory of ["local", "cluster", "again"]) {
    const state = await trainerState(job, directory);
    assert.deepEqual(
      [state.global_step, state.max_steps, state.best_global_step, state.best_metric],
      [8, 12, 4, 2],
    );
    assert.deepEqual(state.stateful_callbacks["EarlyStoppingCallback"], {
      args: { early_stopping_patience: 2, early_stopping_threshold: 0 },
      attributes: { early_stopping_patience_counter: 2 },
    });
    const control = state.stateful_callbacks["TrainerControl"]?.args as
      | Readonly<Record<string, unknown>>
      | undefined;
    assert.equal(control?.["should_training_stop"], true);
    // The best checkpoint of the one that went on is in the other directory.
    await assertWeights(job, directory, 4);
    assert.equal(await resultLoss(job, directory), 2);
  }
  await rm(job.file("cluster/checkpoint-4"), { recursive: true });
  const gone = await job.lockstep([...train, "--output_dir", "gone", ...from]);
  assert.equal(gone.code, 0, gone.stderr);
  assert.match(
    JSON.stringify(gone.events),
    /writing the last model: the best one, that of step 4, is not in gone and not beside cluster.checkpoint-6/,
  );
  await assertWeights(job, "gone", 8);
  assert.notEqual(await resultLoss(job, "gone"), 2);
});

for (const [what, method, files] of [
  [
    "adapters",
    { use_peft: true, lora_target_modules: "all-linear" },
    { "adapter_model.safetensors": 4 },
  ],
  // Averages of 1 to 4 by halves.
  ["an average", { ema_decay: 0.5 }, { "model.safetensors": 4, "ema/model.safetensors": 3.125 }],
] as const) {
  test(`the best weights are the result of a run with ${what}, in one process and a resumed one too`, async (t) => {
    const job = await scriptedJob(t, losses);
    const file = await job.writeJob({ ...settings, ...method });
    const train = ["train", file, ...saving, "--output_dir"];
    for (const args of [
      ["train-local", file, "--output_dir", "local"],
      [...train, "cluster", "--workers", "1"],
      [...train, "again", "--resume_from_checkpoint", "cluster/checkpoint-6"],
    ]) {
      const { code, stderr, lines } = await job.lockstep(args);
      assert.equal(code, 0, stderr);
      assert.match(lines.join("\n"), /writing the best model, that of step 4/);
    }
    for (const directory of ["local", "cluster", "again"]) {
      for (const [name, value] of Object.entries(files)) {
        await assertWeights(job, directory, value, name);
      }
    }
  });
}

test("a run that stopped early is finished, and goes on with more patience", async (t) => {
  const job = await scriptedJob(t, losses);
  const file = await job.writeJob(settings);
  const train = ["train", file, ...saving, "--output_dir", "out", "--resume_from_checkpoint"];
  assert.equal((await job.lockstep([...train, "auto"])).code, 0);
  const again = await job.lockstep([...train, "auto"]);
  assert.equal(again.code, 0, again.stderr);
  assert.match(told(again), /Nothing is left to do: .* after 8 steps, where it stopped early/);
  assert.deepEqual(again.of("step.completed"), []);

  // Of a checkpoint that a run stopped at there is nothing to train either.
  const named = ["--resume_from_checkpoint", "out/checkpoint-8", "--output_dir", "named"];
  const other = await job.lockstep(["train", file, ...saving, ...named]);
  assert.equal(other.code, 0, other.stderr);
  assert.deepEqual(other.of("step.completed"), []);
  assert.match(told(other), /stops early after step 8 of 12/);

  const more = await job.lockstep([...train, "auto", "--early_stopping_patience", "3"]);
  assert.equal(more.code, 0, more.stderr);
  assert.deepEqual(
    more.of("step.completed").map(({ step }) => step),
    [9, 10, 11, 12],
  );
  assert.equal(more.of("run.completed")[0]?.stoppedEarly, undefined);
  await assertWeights(job, "out", 12);
  assert.equal((await trainerState(job, "out")).best_global_step, 12);
});

test("a threshold, an evaluation between two saves, and a run that is too short for its patience", async (t) => {
  const job = await scriptedJob(t, "9,9,3,9,2.95,9,2.925,9,2.9");
  const file = await job.writeJob({ ...settings, early_stopping_threshold: 0.1, max_steps: 8 });
  // The best of step 6 lies between two saves.
  const { code, stderr, events } = await job.lockstep([
    ...["train", file, "--output_dir", "out", "--json-logs"],
    ...["--save_strategy", "steps", "--save_steps", "4"],
  ]);
  assert.equal(code, 0, stderr);
  assert.match(
    JSON.stringify(events),
    /stops early after step 6 of 8: the last 2 evaluations were not better than the best before by more than 0.1/,
  );
  await assertWeights(job, "out", 6);
  const short = await job.lockstep([
    ...["train-local", file, "--output_dir", "short", "--early_stopping_patience", "4"],
  ]);
  assert.equal(short.code, 0, short.stderr);
  assert.match(
    short.lines.join("\n"),
    /warning: the run of 8 steps has 4 evaluations, too few for early_stopping_patience: 4/,
  );
  const none = await job.lockstep(["train-local", file, "--eval_steps", "9"]);
  assert.equal(none.code, 1);
  assert.match(
    none.stderr,
    /E_CONFIG_CONFLICT: .*early_stopping_patience and eval_steps.*one every 9 steps in a run of 8/,
  );
});

test("a validation loss that rises while the training loss falls is told once an onset, across a resume too", async (t) => {
  // Pairs of steps: the means of training are 4, 3, 2, 1, 1 and 0.5.
  const job = await scriptedJob(
    t,
    "9,9,3,9,2,9,2.25,9,2.5,9,1.5,9,1.75",
    "0,4.5,3.5,3.5,2.5,2.5,1.5,1.25,0.75,1,1,0.5,0.5",
  );
  const file = await job.writeJob({
    ...settings,
    ...{ early_stopping_patience: null, load_best_model_at_end: false },
  });
  const warnings = (outcome: CommandOutcome): string[] =>
    [...outcome.lines, ...told(outcome).split("\n")].filter((line) =>
      line.startsWith("warning: overfitting"),
    );
  const expected = [
    "warning: overfitting since step 4: the validation loss rises, 2.0000 to 2.2500, while the training loss falls, " +
      "3.0000 to 2.0000: the model learns the training rows by heart; early_stopping_patience: 2 ends a run there, " +
      "and load_best_model_at_end: true makes the best one the result (docs/overfitting.md)",
    "warning: overfitting since step 10: the validation loss rises, 1.5000 to 1.7500, while the training loss falls, " +
      "1.0000 to 0.5000: the model learns the training rows by heart; early_stopping_patience: 2 ends a run there, " +
      "and load_best_model_at_end: true makes the best one the result (docs/overfitting.md)",
  ];
  const local = await job.lockstep(["train-local", file, "--output_dir", "local"]);
  assert.equal(local.code, 0, local.stderr);
  assert.deepEqual(warnings(local), expected);
  const train = ["train", file, "--json-logs", "--save_strategy", "steps", "--save_steps", "3"];
  const cluster = await job.lockstep([...train, "--output_dir", "cluster"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.deepEqual(warnings(cluster), expected);
  // Between the evaluations after 8 and 10: half of the training losses were before.
  const from = ["--resume_from_checkpoint", "cluster/checkpoint-9"];
  const resumed = await job.lockstep([...train, "--output_dir", "again", ...from]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.deepEqual(warnings(resumed), expected.slice(1));
  const gaps = [-1, -1, 0.25, 1.5, 0.5, 1.25];
  for (const directory of ["local", "cluster", "again"]) {
    const { log_history: history } = await trainerState(job, directory);
    const evaluations = history.filter((entry) => "eval_loss" in entry);
    assert.deepEqual(
      evaluations.map((entry) => entry["eval_loss_gap"]),
      [undefined, ...gaps],
      directory,
    );
    assert.deepEqual(
      evaluations.map((entry) => entry["eval_train_loss"]),
      [undefined, 4, 3, 2, 1, 1, 0.5],
    );
  }
  assert.deepEqual(
    cluster.of("evaluation.completed").map(({ trainLoss }) => trainLoss),
    [undefined, 4, 3, 2, 1, 1, 0.5],
  );
});
