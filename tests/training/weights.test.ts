import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { mastersOf, type RunArguments, runJob, WorkerKiller } from "#tests/support/job-runs";
import { createTinyClassifier } from "#tests/support/tiny-classifier";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Weights of rows and messages, a z-loss and noise on embeddings, all at once: the same bits whoever computes.

let job: TinyJob;
const template =
  "{% for m in messages %}{{ 'A' if m.role == 'assistant' else 'U' }}{{ m.content }}<|end|>{% endfor %}" +
  "{% if add_generation_prompt %}A{% endif %}";

const message = (role: string, content: string, weight?: number) => ({
  ...{ role, content },
  ...(weight === undefined ? {} : { weight }),
});

/** Talks with weights of rows, of messages, both, and none that counts. */
const talks = Array.from({ length: 24 }, (_, i) => ({
  messages: [
    message("user", `law ${i}`),
    message("assistant", `peace ${i * 7}`, i % 3 === 0 ? 0.3 : undefined),
    message("user", "union"),
    message("assistant", `people ${i % 5}`, i % 4 === 0 ? 2.5 : undefined),
  ],
  w: [0.1, 1, 3, 0, 1.7][i % 5],
}));

before(async () => {
  job = await createTinyJob({
    ...{ max_length: 128, max_steps: 6, global_batch_size: 8, gradient_groups: 4 },
    ...{ eval_dataset: null, validation_split: 0.2, max_eval_samples: null },
    ...{ columns: { weight: "w" }, dataset: "talks.jsonl", packing: true, sample_prompt: null },
    ...{ z_loss_weight: 0.01, neftune_noise_alpha: 5, label_smoothing_factor: 0.1 },
  });
  await writeFile(join(job.directory, "model", "chat_template.jinja"), template);
  await writeTalks("talks.jsonl", talks);
});
after(() => job.remove());

const writeTalks = (name: string, rows: readonly unknown[]): Promise<void> =>
  writeFile(join(job.directory, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

const run = (...[command, name, args = [], onEvent]: RunArguments) => {
  const dataset = args.includes("--dataset")
    ? []
    : ["--dataset", join(job.directory, "talks.jsonl")];
  return runJob(job, command, name, [...dataset, ...args], onEvent);
};

const withFile = (name: string): readonly string[] => ["--dataset", join(job.directory, name)];

let expected = "";
const saving = ["--save-strategy", "steps", "--save-steps", "3", "--workers", "1"];

test("one process and one worker end with the same weights, and a run says what its losses are", async () => {
  const local = await run("train-local", "local");
  assert.equal(local.code, 0, local.stderr);
  expected = mastersOf(local);
  const said = local.lines.join("\n");
  assert.match(said, /5 rows of the weight 0 left out, the first at .*talks\.jsonl:4/);
  assert.match(said, /15 examples packed into rows that they share, \d rows/);
  assert.match(said, /losses are weighted means, in evaluations too/);
  assert.match(said, /training losses hold z_loss_weight 0\.01 .*those of evaluations do not/);
  assert.match(said, /noise: vectors of tokens get up to 5 \/ sqrt\(L D\)/);
  const cluster = await run("train", "cluster", saving);
  assert.equal(mastersOf(cluster), expected);
  assert.equal(cluster.of("run.started")[0]?.objective.unit, "weighted token");
  const { weight = 0 } = cluster.of("evaluation.completed")[0] ?? {};
  assert.ok(weight > 0 && !Number.isInteger(weight), `${weight}`);
});

test("so do two workers with recomputed activations, and a worker that is killed", async () => {
  const args = ["--workers", "2", "--reducer_shards", "3", "--gradient_checkpointing", "true"];
  assert.equal(mastersOf(await run("train", "two", args)), expected);
  const killer = new WorkerKiller(2);
  const broken = await run("train", "killed", ["--workers", "2"], killer.onEvent);
  assert.equal(broken.code, 0, broken.stderr);
  killer.assertLost(broken);
  assert.equal(mastersOf(broken), expected);
});

test("a resumed run ends like the others, and not with another alpha, z or weights", async () => {
  const from = ["--resume-from-checkpoint", join(job.directory, "cluster", "checkpoint-3")];
  assert.equal(mastersOf(await run("train", "resumed", [...saving, ...from])), expected);
  const refused = async (...args: readonly string[]): Promise<string> => {
    const other = await run("train", "other", [...saving, ...from, ...args]);
    assert.notEqual(other.code, 0);
    return other.stderr;
  };
  assert.match(
    await refused("--neftune_noise_alpha", "0"),
    /E_RESUME_MISMATCH.*neftune_noise_alpha was 5 and is now null/s,
  );
  assert.match(
    await refused("--z_loss_weight", "0"),
    /E_RESUME_MISMATCH.*z_loss_weight was 0\.01 and is now null/s,
  );
  await writeTalks("others.jsonl", [{ ...talks[0], w: 0.2 }, ...talks.slice(1)]);
  assert.match(
    await refused(...withFile("others.jsonl")),
    /E_RESUME_MISMATCH.*the training data had SHA-256/s,
  );
});

test("weights of 2 train as none do, and rows of the weight 0 as if they were not there", async () => {
  const plain = talks.map(({ messages, ...row }) => ({
    messages: messages.map(({ role, content }) => ({ role, content })),
    ...row,
  }));
  await writeTalks(
    "plain.jsonl",
    plain.map((row) => ({ ...row, w: 1 })),
  );
  await writeTalks(
    "twice.jsonl",
    plain.map((row) => ({ ...row, w: 2 })),
  );
  await writeTalks(
    "without.jsonl",
    talks.filter(({ w }) => w !== 0),
  );
  const digestOf = async (name: string): Promise<string> =>
    mastersOf(await run("train-local", name, withFile(`${name}.jsonl`)));
  const unweighted = await digestOf("plain");
  assert.equal(await digestOf("twice"), unweighted);
  assert.notEqual(unweighted, expected);
  assert.equal(await digestOf("without"), expected);
});

// Virtual tokens have no noise, and those of the text have it.
for (const [name, args] of Object.entries({
  "float16 and adapters": ["--fp16", "true", "--use_peft", "true", "--lora_dropout", "0.1"],
  "bfloat16 and the last layer": ["--bf16", "true", "--finetuning_type", "freeze"],
  "virtual tokens": ["--finetuning_type", "prompt", "--packing", "false", "--max_length", "96"],
})) {
  test(`${name}: one process and two workers end with the same weights`, async () => {
    const local = mastersOf(await run("train-local", `${name} local`, args));
    assert.equal(mastersOf(await run("train", name, [...args, "--workers", "2"])), local);
  });
}

test("a classifier's rows count by their weights, in one process and on two workers", async (t) => {
  const classifier = await createTinyClassifier("bert", {
    settings: { max_steps: 4, global_batch_size: 8, gradient_groups: 2, columns: { weight: "w" } },
  });
  t.after(() => classifier.remove());
  const file = join(classifier.directory, "rows.jsonl");
  const rows = (await readFile(file, "utf8")).trim().split("\n");
  const weighted = rows.map((row, i) => row.replace(/}$/, `,"w":${[0.1, 1, 3][i % 3]}}`));
  await writeFile(file, `${weighted.join("\n")}\n`);
  const args = ["--z_loss_weight", "0.01", "--class-weights", "balanced"];
  const local = await runJob(classifier, "train-local", "local", args);
  const cluster = await runJob(classifier, "train", "cluster", [...args, "--workers", "2"]);
  assert.equal(mastersOf(cluster), mastersOf(local));
  assert.equal(cluster.of("run.started")[0]?.objective.unit, "weighted row");
});
