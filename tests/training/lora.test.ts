import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { AdapterDirectory, rowNorms } from "#lib/checkpoint/peft/index";
import { adapterFacts } from "#lib/models/facts";
import { relativeError } from "#tests/support/compare";
import { mastersOf, runJob, WorkerKiller } from "#tests/support/job-runs";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyClassifier } from "#tests/support/tiny-classifier";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// LoRA in the whole command, with the real engine in real processes.

let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    ...{ use_peft: true, lora_r: 4, lora_alpha: 8, lora_target_modules: "all-linear" },
    ...{ learning_rate: 1e-2, max_steps: 6, global_batch_size: 8, gradient_groups: 4 },
  });
});
after(() => job.remove());

const run = (command: "train" | "train-local", name: string, ...args: readonly string[]) =>
  runJob(job, command, name, args);

for (const precision of ["--bf16", "--no-bf16"]) {
  test(`one process, one and two workers end with the same adapter (${precision})`, async () => {
    const local = await run("train-local", `local${precision}`, precision);
    const expected = mastersOf(local);
    for (const numWorkers of [1, 2]) {
      const name = `workers-${numWorkers}${precision}`;
      const cluster = await run("train", name, precision, "--workers", String(numWorkers));
      assert.equal(mastersOf(cluster), expected, name);
    }
  });
}

test("with LoRA+ and rates by layer one process and two workers end with the same adapter", async () => {
  const rates = ["--no-bf16", "--loraplus_lr_ratio", "8", "--layerwise_lr_decay", "0.5"];
  const local = await run("train-local", "local-rates", ...rates);
  assert.equal(local.code, 0, local.stderr);
  assert.match(local.lines.join("\n"), /learning rates: \d groups, from 0\.00\d+ to 0\.0\d+/);
  const cluster = await run("train", "rates", ...rates, "--workers", "2");
  assert.equal(mastersOf(cluster), mastersOf(local));
  const [before, later] = cluster.of("evaluation.completed");
  assert.ok((later?.loss ?? 0) < (before?.loss ?? 0), "the validation loss falls");
});

test("the saved adapter fits its base, has moved, and a resumed run ends with the same one", async () => {
  const saving = ["--save-strategy", "steps", "--save-steps", "3", "--eval-strategy", "no"];
  const whole = await run("train", "whole", ...saving);
  assert.equal(whole.code, 0, whole.stderr);
  const output = join(job.directory, "whole");
  const checkpoint = join(output, "checkpoint-3");
  const resumed = await run("train", "resumed", ...saving, "--resume-from-checkpoint", checkpoint);
  assert.equal(resumed.code, 0, resumed.stderr);
  const sha256 = whole.of("run.completed")[0]?.mastersSha256;
  assert.equal(resumed.of("run.completed")[0]?.mastersSha256, sha256);
  const [before, later] = whole.of("evaluation.completed");
  assert.ok((later?.loss ?? 0) < (before?.loss ?? 0), "the validation loss falls");

  const base = await ModelWeights.open(join(job.directory, "model"));
  for (const directory of [output, checkpoint]) {
    const adapter = await AdapterDirectory.open(directory);
    adapter.checkAgainst({
      facts: adapterFacts({ model_type: "llama" }),
      weights: base.names().map((name) => ({ name, shape: base.info(name).shape })),
    });
    assert.equal(adapter.config.base_model_name_or_path, join(job.directory, "model"));
    assert.ok(adapter.modules.every(({ rank }) => rank === 4));
    for (const { path } of adapter.modules) {
      const b = await adapter.readPart(path, "B");
      assert.ok(
        b.some((value) => value !== 0),
        path,
      );
    }
    await adapter.close();
  }
  await base.close();
});

test("DoRA under dropout ends with the same adapter in one process, with workers, a killed one, and resumed", async () => {
  const dora = [
    ...["--no-bf16", "--use-dora", "--lora-dropout", "0.1", "--init_lora_weights", "gaussian"],
    ...["--lora_layers_to_transform", "0", "--lora_exclude_modules", "o_proj"],
    ...[
      "--lora_rank_pattern",
      "{q_proj: 2, mlp.up_proj: 6}",
      "--lora_alpha_pattern",
      "{q_proj: 4}",
    ],
  ];
  const local = await run("train-local", "local-dora", ...dora);
  assert.equal(local.code, 0, local.stderr);
  assert.match(local.lines.join("\n"), /DoRA of rank 2 and 4 and 6 on 6 modules/);
  const saving = [...dora, "--save-strategy", "steps", "--save-steps", "3"];
  const cluster = await run("train", "dora", ...saving, "--workers", "2");
  assert.equal(mastersOf(cluster), mastersOf(local));
  const killer = new WorkerKiller(2);
  const two = [...dora, "--workers", "2"];
  const broken = await runJob(job, "train", "dora-killed", two, killer.onEvent);
  killer.assertLost(broken);
  assert.equal(mastersOf(broken), mastersOf(local));
  const checkpoint = join(job.directory, "dora", "checkpoint-3");
  const resumed = await run("train", "dora-1", ...saving, "--resume-from-checkpoint", checkpoint);
  assert.equal(mastersOf(resumed), mastersOf(local));
  const [before, later] = cluster.of("evaluation.completed");
  assert.ok((later?.loss ?? 0) < (before?.loss ?? 0), "the validation loss falls");
  const adapter = await AdapterDirectory.open(join(job.directory, "dora"));
  const base = await ModelWeights.open(join(job.directory, "model"));
  for (const { path, numOutputs } of adapter.modules) {
    const weight = await base.readFloat32(`${path}.weight`);
    const initial = rowNorms(weight, { numOutputs, isTransposed: false });
    const moved = relativeError(await adapter.readPart(path, "magnitude"), initial);
    assert.ok(moved > 1e-4 && moved < 0.5, `${path} moved by ${moved}`);
  }
  const ranks = adapter.modules.map(({ path, rank }) => [path.replace(/^.*\./, ""), rank]);
  assert.deepEqual(Object.fromEntries(ranks), {
    ...{ down_proj: 4, gate_proj: 4, up_proj: 6, k_proj: 4, q_proj: 2, v_proj: 4 },
  });
  assert.ok(adapter.modules.every(({ path }) => path.startsWith("model.layers.0.")));
  await adapter.close();
  await base.close();
});

test("a checkpoint of another rank is not resumed", async () => {
  const outcome = await run(
    ...(["train", "other-rank", "--lora-r", "2", "--resume-from-checkpoint"] as const),
    join(job.directory, "whole", "checkpoint-3"),
  );
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /E_RESUME_MISMATCH.*lora_r was 4 and is now 2/);
});

for (const [modelType, head, saved] of [
  ["bert", ["bert.pooler.dense", "classifier"], ["bert.pooler.dense", "classifier", "score"]],
  ["roberta", ["classifier.dense", "classifier.out_proj"], ["classifier", "score"]],
] as const) {
  test(`a ${modelType} classifier's new head is saved beside its adapters, with its classes`, async (t) => {
    const rows = (directory: string) => join(directory, "rows.jsonl");
    const settings = { use_peft: true, lora_r: 4, learning_rate: 1e-2, bf16: false };
    const classifier = await createTinyClassifier(modelType, { settings });
    const { directory, configFile, remove } = classifier;
    t.after(remove);
    const lockstep = async (...args: string[]): Promise<readonly string[]> => {
      const outcome = await lockstepCommand(args, join(directory, "cache"));
      assert.equal(outcome.code, 0, outcome.stderr);
      return outcome.lines;
    };
    const log = await lockstep("train-local", configFile, "--eval_dataset", rows(directory));
    const output = join(directory, "out");
    // The adapter's directory, and the model that it is merged into, have the run's own evaluation.
    const merged = join(directory, "merged");
    await lockstep("merge-adapter", output, merged);
    const [own, whole] = await Promise.all(
      [output, merged].map((model) =>
        lockstep("classify", model, "--file", rows(directory), "--json", "--top", "1"),
      ),
    );
    assert.deepEqual(own, whole);
    const texts = (await readFile(rows(directory), "utf8")).trim().split("\n");
    const right = texts.filter((row, i) => {
      const [best] = (JSON.parse(own?.[i] ?? "") as { scores: { label: string }[] }).scores;
      return best?.label === (JSON.parse(row) as { label: string }).label;
    });
    const accuracy = `accuracy ${(right.length / texts.length).toFixed(4)}`;
    assert.ok(log.join("\n").includes(accuracy), `${accuracy}: ${log.slice(-4).join("\n")}`);
    // Beside a config.json transformers would take the directory for a whole model.
    assert.ok(!(await readdir(output)).includes("config.json"));
    const adapter = await AdapterDirectory.open(output);
    assert.equal(adapter.config.task_type, "SEQ_CLS");
    assert.deepEqual(adapter.config.modules_to_save, saved);
    assert.deepEqual(
      adapter.savedWeights,
      head.flatMap((module) => [`${module}.bias`, `${module}.weight`]),
    );
    // Queries and values of two layers.
    assert.equal(adapter.modules.length, 4);
    // Trained further, it begins with its own head over the same classes.
    const still = ["--adapter_name_or_path", output, "--learning_rate", "0", "--max_steps", "1"];
    const further = join(directory, "further");
    await lockstep("train-local", configFile, ...still, "--output_dir", further);
    const unmoved = await AdapterDirectory.open(further);
    assert.equal(await unmoved.digest(), await adapter.digest());
    await unmoved.close();
    await adapter.close();
  });
}
