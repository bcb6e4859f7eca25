import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { assertSameBits } from "#tests/support/same-bits";
import { createTaskJob } from "#tests/support/task-job";

// Several tasks in the whole command, with the real engine in real processes.

const twoTasks = ({ texts, answers }: { texts: string; answers: string }) => ({
  dataset: [
    { path: texts, task: "speech" },
    { path: answers, task: "answers" },
  ],
});

test("two tasks of fixed weights: the same bits whoever computes, each with its own loss in events and history", async (t) => {
  const job = await createTaskJob((files) => ({
    ...twoTasks(files),
    tasks: { speech: { weight: 0.5, share: 1 }, answers: { weight: 2, share: 3, max_length: 40 } },
  }));
  t.after(job.remove);
  const { two } = await assertSameBits(job);
  for (const event of two.of("step.completed")) {
    const [speech, answers] = event.tasks ?? [];
    assert.deepEqual([speech?.name, speech?.weight], ["speech", 0.5]);
    assert.deepEqual([answers?.name, answers?.weight], ["answers", 2]);
    assert.equal(event.loss, 0.5 * (speech?.loss ?? NaN) + 2 * (answers?.loss ?? NaN));
  }
});

test("weights that are learnt by uncertainty: the same bits whoever computes, and a resumed run learns on", async (t) => {
  const job = await createTaskJob((files) => ({
    ...twoTasks(files),
    ...{ tasks: { answers: { max_length: 40 } }, task_weighting: "uncertainty" },
    ...{ eval_strategy: "steps", eval_steps: 2 },
  }));
  t.after(job.remove);
  const best = ["--metric-for-best-model", "eval_answers_loss"];
  const { two, resumed } = await assertSameBits(job, { ofTwo: best });
  const weights = (run: typeof two) =>
    run.of("step.completed").map(({ tasks = [] }) => tasks.map(({ weight }) => weight));
  assert.deepEqual(weights(two)[0], [1, 1]);
  assert.ok(weights(two)[3]?.every((weight) => weight !== 1));
  assert.deepEqual(weights(resumed), weights(two).slice(2));
  const [evaluated] = two.of("evaluation.completed").slice(-1);
  const { answers_loss: own, speech_loss: other } = evaluated?.metrics ?? {};
  assert.ok((own ?? 0) > 0 && (other ?? 0) > 0);
  const state = JSON.parse(
    await readFile(join(job.directory, "two", "checkpoint-4", "trainer_state.json"), "utf8"),
  ) as { best_metric: number; log_history: Record<string, number>[] };
  const evaluations = state.log_history.filter((entry) => "eval_loss" in entry);
  const logged = evaluations.map((entry) => entry["eval_answers_loss"] ?? NaN);
  assert.equal(state.best_metric, Math.min(...logged.slice(1)));
  assert.ok("task/speech/loss" in (state.log_history[1] ?? {}));
});

test("general rows replayed in one mean, and in one of their own: the same bits whoever computes", async (t) => {
  for (const replay of [{ replay_probability: 0.25 }, { replay_weight: 0.5 }]) {
    const job = await createTaskJob(({ answers, general }) => ({
      ...{ dataset: answers, general_dataset: general, max_length: 40, ...replay },
    }));
    t.after(job.remove);
    const { local, two } = await assertSameBits(job);
    const lines = local.lines.join("\n");
    const [first] = two.of("step.completed");
    if ("replay_weight" in replay) {
      assert.match(
        lines,
        /task general: 10 % of the rows of a step, weight 0.5, a mean of its own/,
      );
      assert.deepEqual(
        first?.tasks?.map(({ name, weight }) => [name, weight]),
        [
          ["main", 1],
          ["general", 0.5],
        ],
      );
    } else {
      assert.match(lines, /replay: 25 % of the rows of a step are general ones/);
      assert.equal(first?.tasks, undefined);
    }
  }
});

test("what tasks and replay cannot be is refused by name", async (t) => {
  const job = await createTaskJob(twoTasks);
  t.after(job.remove);
  const [texts, answers] = ["texts", "answers"].map((name) => join(job.directory, `${name}.jsonl`));
  const two = [
    { path: texts, task: "speech" },
    { path: answers, task: "answers" },
  ];
  const one = join(job.directory, "one.jsonl");
  await writeFile(one, `${JSON.stringify({ prompt: "the state", completion: " of the union" })}\n`);
  const cases: readonly (readonly [Readonly<Record<string, unknown>>, RegExp])[] = [
    // Its evaluation after the last step would be of the other task alone.
    [
      {
        dataset: [{ path: one, task: "speech" }, two[1]],
        eval_strategy: "no",
        eval_on_start: false,
        max_length: 64,
      },
      /eval_on_end and validation_split.*no row of task speech is there/,
    ],
    [{ dataset: [two[0], answers] }, /dataset\[1\] and tasks.*each entry says its task/],
    [{ dataset: [two[0]] }, /tasks\.speech.*one task has no need/],
    [{ tasks: { speach: {} } }, /tasks\.speach.*did you mean speech/],
    [{ tasks: { speech: { wieght: 1 } } }, /wieght/],
    [{ tasks: { speech: { weight: 0 } } }, /weight/],
    [{ tasks: { speech: { share: 1.5 } } }, /leaves none for answers/],
    [{ tasks: { speech: { weight: 2 } }, task_weighting: "uncertainty" }, /weights are learnt/],
    [{ dataset: answers, task_weighting: "uncertainty" }, /task_weighting and dataset/],
    [
      { eval_dataset: [{ path: texts, task: "speech" }] },
      /no entry of eval_dataset has task: answers/,
    ],
    [{ dataset: answers, replay_probability: 0.5 }, /replay_probability and general_dataset/],
    [{ dataset: answers, replay_weight: 0.5 }, /replay_weight and general_dataset/],
    [{ general_dataset: texts, replay_probability: 0.5 }, /replay_probability and tasks/],
    [{ train_sampling_strategy: "group_by_length" }, /train_sampling_strategy and dataset/],
    [{ metric_for_best_model: "eval_sermon_loss", eval_strategy: "steps" }, /eval_sermon_loss/],
    [{ dataset: [{ path: texts, task: "general" }, two[1]] }, /is not general/],
    // Else eval_train_loss would be two things.
    [{ dataset: [{ path: texts, task: "train" }, two[1]] }, /is not general or train/],
    [{ dataset: [{ path: texts, task: "Answers" }, two[1]] }, /tasks\.answers.*other letters/],
    [{ general_dataset: [{ path: texts, task: "speech" }] }, /general rows are of no task/],
  ];
  for (const [settings, message] of cases) {
    const args = Object.entries(settings).flatMap(([key, value]) => [
      `--${key.replaceAll("_", "-")}`,
      JSON.stringify(value),
    ]);
    const outcome = await runJob(job, "train-local", "refused", args);
    assert.equal(outcome.code, 1, JSON.stringify(settings));
    assert.match(outcome.stderr, message);
  }
});

test("preferences beside texts, and adapters of two tasks: the same bits in one process and with two workers", async (t) => {
  const assertAlike = async (job: Awaited<ReturnType<typeof createTaskJob>>): Promise<void> => {
    t.after(job.remove);
    const local = await runJob(job, "train-local", "local", []);
    const two = await runJob(job, "train", "two", ["--workers", "2"]);
    assert.equal(mastersOf(two), mastersOf(local));
    assert.equal(two.of("step.completed")[0]?.tasks?.length, 2);
  };
  await assertAlike(
    await createTaskJob(({ pairs, answers }) => ({
      dataset: [
        { path: answers, task: "answers" },
        { path: pairs, task: "pairs" },
      ],
      ...{ max_length: 64, tasks: { pairs: { objective: "dpo", share: 0.25 } } },
    })),
  );
  await assertAlike(await createTaskJob((files) => ({ ...twoTasks(files), ...ofAdapters })));
});

const ofAdapters = { use_peft: true, lora_target_modules: "all-linear", max_length: 40 };
