import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import { ModelWeights } from "#lib/checkpoint/index";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { assertSameBits, lockstepLines } from "#tests/support/same-bits";
import { createTaskJob } from "#tests/support/task-job";
import { createTinyClassifier } from "#tests/support/tiny-classifier";

// Tasks with labels have heads of their own over one backbone.

const steps = {
  max_steps: 4,
  global_batch_size: 8,
  gradient_groups: 2,
  per_device_train_batch_size: 2,
};

/** Sentences with a topic each, and with a number each. */
async function createEncoderTasks(settings: Readonly<Record<string, unknown>>) {
  const job = await createTinyClassifier("bert", { settings: steps });
  const topics = join(job.directory, "rows.jsonl");
  const rows = (await readFile(topics, "utf8")).trim().split("\n");
  const marks = join(job.directory, "marks.jsonl");
  const marked = rows.map((row, i) => ({
    text: (JSON.parse(row) as { text: string }).text.slice(0, 20 + (i % 5)),
    label: (i % 7) / 4,
  }));
  await writeFile(marks, marked.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const kinds = join(job.directory, "kinds.jsonl");
  const kind = rows.map((row, i) => ({
    ...(JSON.parse(row) as object),
    label: i % 2 === 0 ? "even" : "odd",
  }));
  await writeFile(kinds, kind.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const before = parse(await readFile(job.configFile, "utf8")) as Record<string, unknown>;
  const dataset = [
    { path: topics, task: "topic" },
    { path: marks, task: "mark" },
    { path: kinds, task: "kind" },
  ];
  await writeFile(
    job.configFile,
    stringify({ ...before, dataset, tasks: { mark: { objective: "regression" } }, ...settings }),
  );
  return job;
}

test("two classifiers and a regression over a BERT: the same bits, and each task's directory classifies", async (t) => {
  const job = await createEncoderTasks({ task_weighting: "uncertainty", learning_rate: 1e-2 });
  t.after(job.remove);
  const { local, two } = await assertSameBits(job);
  assert.match(local.lines.join("\n"), /topic, mark, kind: heads of their own over one backbone/);
  const [first] = two.of("step.completed");
  assert.deepEqual(
    first?.tasks?.map(({ name, weight }) => [name, weight]),
    [
      ["topic", 1],
      ["mark", 0.5],
      ["kind", 1],
    ],
  );
  const [evaluated] = two.of("evaluation.completed").slice(-1);
  for (const key of ["topic_accuracy", "kind_macro_f1", "mark_rmse", "mark_loss"]) {
    assert.ok(Number.isFinite(evaluated?.metrics[key]), key);
  }
  const result = join(job.directory, "two");
  const labelOf = async (directory: string): Promise<string> => {
    const lines = await lockstepLines(job, "classify", directory, "--text", "the state of law law");
    return lines.join("\n");
  };
  assert.match(await labelOf(join(result, "tasks/topic")), /about (law|peace|people)/);
  assert.equal(await labelOf(result), await labelOf(join(result, "tasks/topic")));
  assert.match(await labelOf(join(result, "tasks/kind")), /even|odd/);
  await labelOf(join(result, "tasks/mark"));
  // One backbone, heads of their own.
  const [main, mark] = await Promise.all(
    [result, join(result, "tasks/mark")].map((directory) => ModelWeights.open(directory)),
  );
  t.after(() => Promise.all([main?.close(), mark?.close()]));
  assert.deepEqual(main?.names(), mark?.names());
  for (const name of main?.names() ?? []) {
    const isHead = /^(classifier|bert\.pooler)\./.test(name);
    const [one, other] = [await main?.readFloat32(name), await mark?.readFloat32(name)];
    const isSame = one?.every((value, i) => Object.is(value, other?.[i])) === true;
    assert.equal(isSame, !isHead, name);
  }
});

test("the next token and a classifier over a Llama: the same bits, a causal model and a classifier beside it", async (t) => {
  const job = await createTaskJob(({ texts, labelled }) => ({
    dataset: [
      { path: labelled, task: "topic" },
      { path: texts, task: "speech" },
    ],
    ...{ tasks: { topic: { max_length: 40 } }, sample_prompt: "the state" },
    ema_decay: 0.9,
  }));
  t.after(job.remove);
  const { two } = await assertSameBits(job);
  assert.ok(two.of("sample.generated").length > 0);
  const result = join(job.directory, "two");
  const config = async (directory: string) =>
    JSON.parse(await readFile(join(directory, "config.json"), "utf8")) as Record<string, unknown>;
  assert.match(String((await config(result))["architectures"]), /ForCausalLM/);
  const topic = join(result, "tasks/topic");
  assert.match(String((await config(topic))["architectures"]), /ForSequenceClassification/);
  for (const directory of [
    topic,
    join(result, "ema/tasks/topic"),
    join(result, "checkpoint-2/tasks/topic"),
  ]) {
    const lines = await lockstepLines(job, "classify", directory, "--text", "the law of peace");
    assert.match(lines.join("\n"), /calm|loud/);
  }
  await lockstepLines(job, "generate", result, "--prompt", "the state", "--max-new-tokens", "2");
});

test("adapters beside tasks with labels are refused, texts of an encoder are, and what a run left is removed", async (t) => {
  const job = await createEncoderTasks({});
  t.after(job.remove);
  const lora = await runJob(job, "train-local", "lora", ["--use-peft", "true"]);
  assert.match(
    lora.stderr,
    /finetuning_type and tasks\.topic.*saved as a model of its own, and lora/,
  );
  const text = [
    { path: join(job.directory, "rows.jsonl"), task: "topic" },
    { path: join(job.directory, "marks.jsonl"), type: "completion", task: "mark" },
  ];
  const texts = await runJob(job, "train-local", "texts", [
    ...["--dataset", JSON.stringify(text), "--tasks", JSON.stringify({ mark: {} })],
  ]);
  assert.match(texts.stderr, /bert encoder learns rows with a label/);
  mastersOf(await runJob(job, "train-local", "again", []));
  assert.ok(existsSync(join(job.directory, "again/tasks/kind/model.safetensors")));
  const args = ["--seed", "3", "--overwrite-output-dir", "--tasks", "null", "--dataset"];
  const single = JSON.stringify(join(job.directory, "rows.jsonl"));
  mastersOf(await runJob(job, "train-local", "again", [...args, single]));
  assert.ok(!existsSync(join(job.directory, "again/tasks")));
});
