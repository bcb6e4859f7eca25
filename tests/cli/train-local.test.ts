import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { readTrainerState } from "#lib/checkpoint/index";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import type { CommandOutcome } from "#tests/support/lockstep-command";

// One process does what its configuration says, as the cluster does it, or refuses it by name.

const fakeEngine = join(packageRoot, "dist/tests/support/fake-engine.js");

async function createJob(t: TestContext): Promise<CaseJob> {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  return job;
}

const digestOf = ({ lines, stderr }: CommandOutcome): string =>
  /masters sha256 ([0-9a-f]{64})/.exec(lines.join("\n"))?.[1] ?? assert.fail(stderr);

test("checkpoints to resume from or to save are refused, and nothing is trained", async (t) => {
  const job = await createJob(t);
  for (const [settings, message] of [
    [
      { resume_from_checkpoint: true },
      /^E_CONFIG_UNSUPPORTED: resume_from_checkpoint: true is not /,
    ],
    [{ save_strategy: "steps", save_steps: 1 }, /save_strategy: "steps" .*save_steps \(.*:\d+\)/],
  ] as const) {
    const file = await job.writeJob({ engine_module: fakeEngine, ...settings });
    const { code, stderr, lines } = await job.lockstep(["train-local", file]);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.match(stderr, /changed\.yaml:\d+.*`lockstep train`/);
    assert.deepEqual(lines, []);
    assert.ok(!existsSync(job.file("out")));
  }
  const asItIs = await job.writeJob({ engine_module: fakeEngine });
  assert.equal((await job.lockstep(["train-local", asItIs])).code, 0);
});

test("evaluations, samples and the engine are those of the configuration", async (t) => {
  const job = await createJob(t);
  const file = await job.writeJob({
    ...{ engine_module: fakeEngine, max_steps: 4, eval_dataset: "sums.jsonl" },
    ...{ eval_on_start: true, eval_strategy: "steps", eval_steps: 1, eval_delay: 3 },
    ...{ sample_prompt: "1 plus", sample_max_new_tokens: 3, run_name: "the sums" },
  });
  const local = await job.lockstep(["train-local", file]);
  assert.equal(local.code, 0, local.stderr);
  const kinds = local.lines.map(
    (line) => /^(step \d|validation loss|sample(?=:)|training(?= the))/.exec(line)?.[1],
  );
  assert.deepEqual(
    kinds.filter((kind) => kind !== undefined),
    [
      ...["training", "validation loss", "sample", "step 1", "step 2", "step 3", "validation loss"],
      ...["step 4", "validation loss", "sample"],
    ],
  );
  assert.ok(local.lines.includes("training the sums"));
  const cluster = await job.lockstep(["train", file, "--json-logs", "--output_dir", "cluster"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(digestOf(local), cluster.of("run.completed")[0]?.mastersSha256);
  const evaluated = async (name: string) =>
    (await readTrainerState(job.file(name))).log_history
      .filter((entry) => "eval_loss" in entry)
      .map(({ step, epoch, eval_loss }) => ({ step, epoch, eval_loss }));
  assert.deepEqual(await evaluated("out"), await evaluated("cluster"));
  const silent = await job.lockstep([
    "train-local",
    file,
    ...["--eval_on_end", "false"],
    ...["--eval_strategy", "no", "--eval_on_start", "false"],
  ]);
  assert.doesNotMatch(silent.lines.join("\n"), /validation loss/);
});

/** The tests' engine, whose gradients of rows with a `#` are no numbers. */
async function writePoisonedEngine(job: CaseJob, value: number): Promise<string> {
  const file = job.file("engine.mjs");
  const token = 4 + "#".charCodeAt(0);
  const bytes = [...new Uint8Array(Float32Array.of(value).buffer)];
  await writeFile(
    file,
    `import create from ${JSON.stringify(fakeEngine)};
export default async (job) => {
  const engine = await create(job);
  const accumulate = engine.accumulate.bind(engine);
  engine.accumulate = (batch, gradScale, first, wireBytes) => {
    const sum = accumulate(batch, gradScale, first, wireBytes);
    if (batch.fields.tokens.includes(${token})) wireBytes?.set(${JSON.stringify(bytes)});
    return sum;
  };
  return engine;
};
`,
  );
  return file;
}

/**
 * @param poisoned numbers of the rows, in the order of training, with a gradient that is none
 * @param value what one of its elements is
 */
async function poisonedJob(
  t: TestContext,
  poisoned: readonly number[],
  keys: object,
  value = Number.NaN,
) {
  const job = await createJob(t);
  const rows = Array.from({ length: 16 }, (_, i) => ({
    prompt: `${i} plus ${i} is `,
    completion: `${2 * i}${poisoned.includes(i) ? "#" : ""}`,
  }));
  await writeFile(job.file("sums.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const file = await job.writeJob({
    engine_module: await writePoisonedEngine(job, value),
    ...{ train_sampling_strategy: "sequential", per_device_train_batch_size: 2, max_steps: 8 },
    ...{ learning_rate: 1e-2, lr_scheduler_type: "linear", warmup_steps: 2, ...keys },
  });
  return { job, file };
}

test("a gradient that is not finite is left out, with the cluster's weights and rates", async (t) => {
  const { job, file } = await poisonedJob(t, [2, 8, 11], {});
  const local = await job.lockstep(["train-local", file]);
  assert.equal(local.code, 0, local.stderr);
  const cluster = await job.lockstep(["train", file, "--json-logs", "--output_dir", "cluster"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(digestOf(local), cluster.of("run.completed")[0]?.mastersSha256);
  const skipped = local.lines.flatMap((line) =>
    line.includes("no update: the gradient is not finite")
      ? (/^step (\d)/.exec(line)?.[1] ?? [])
      : [],
  );
  assert.deepEqual(skipped, ["2", "5", "6"]);
  const rates = cluster
    .of("step.completed")
    .map(({ learningRate }) => learningRate.toExponential(3));
  assert.deepEqual(
    local.lines.flatMap((line) => /^step .* lr (\S+)/.exec(line)?.[1] ?? []),
    rates,
  );
  // Rates go by updates: that of a skipped step is the next one's too.
  assert.equal(rates[1], rates[2]);
  const own = await readFile(job.file("out/model.safetensors"));
  assert.deepEqual(own, await readFile(job.file("cluster/model.safetensors")));
});

test("weights that are no numbers any more are not saved, nor those that save_dtype does not hold", async (t) => {
  const keys = { max_steps: 1, optim: "sgd", max_grad_norm: 0, lr_scheduler_type: "constant" };
  for (const [changes, message] of [
    [{ learning_rate: 1e38 }, /^E_NON_FINITE_WEIGHTS: After step 1 tensor \S+ holds -?Infinity/m],
    [
      { learning_rate: 1e8, save_dtype: "float16" },
      /^E_TENSOR_RANGE: Tensor .* infinite in float16/m,
    ],
  ] as const) {
    const { job, file } = await poisonedJob(t, [], { ...keys, warmup_steps: 0, ...changes });
    for (const command of ["train-local", "train"]) {
      const { code, stderr } = await job.lockstep([command, file, "--save_strategy", "no"]);
      assert.equal(code, 1, command);
      assert.match(stderr, message, command);
      await assert.rejects(readFile(job.file("out/model.safetensors")), { code: "ENOENT" });
    }
    const saving = ["train", file, "--save_strategy", "steps", "--save_steps", "1"];
    const { code, stderr } = await job.lockstep([...saving, "--output_dir", "kept"]);
    assert.equal(code, 1);
    assert.match(stderr, message);
    await assert.rejects(readFile(job.file("kept/checkpoint-1/model.safetensors")), {
      code: "ENOENT",
    });
  }
});

test("a run of which every step is left out has no result", async (t) => {
  const { job, file } = await poisonedJob(t, [0, 2], { max_steps: 2 });
  for (const command of ["train-local", "train"]) {
    const { code, stderr } = await job.lockstep([command, file]);
    assert.equal(code, 1, command);
    assert.match(stderr, /^E_NO_UPDATE: None of the 2 steps had a finite gradient/m, command);
    await assert.rejects(readFile(job.file("out/model.safetensors")), { code: "ENOENT" });
  }
});

test("an infinite gradient in step 3 is left out in one process and by two workers alike", async (t) => {
  // Two groups a step: the other one's gradient is finite.
  const keys = { workers: 2, per_device_train_batch_size: 1, max_steps: 5 };
  const { job, file } = await poisonedJob(t, [4], keys, Number.POSITIVE_INFINITY);
  const local = await job.lockstep(["train-local", file]);
  assert.equal(local.code, 0, local.stderr);
  const cluster = await job.lockstep(["train", file, "--json-logs", "--output_dir", "cluster"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(digestOf(local), cluster.of("run.completed")[0]?.mastersSha256);
  const skipped = local.lines.filter((line) => line.includes("no update: the gradient is not"));
  assert.equal(skipped.length, 1);
  assert.match(skipped[0] ?? "", /^step 3\/5 /);
  const rates = cluster.of("step.completed").map(({ learningRate }) => learningRate);
  assert.equal(rates[2], rates[3]);
});

test("gradients that stay not finite end the run with an error and without a model", async (t) => {
  const { job, file } = await poisonedJob(t, [4, 6, 8, 10], {});
  for (const command of ["train-local", "train"]) {
    const { code, stderr } = await job.lockstep([command, file, "--output_dir", command]);
    assert.equal(code, 1, command);
    assert.match(stderr, /^E_NON_FINITE_GRADIENT: The gradient of step 5 is not finite/m, command);
    assert.ok(!existsSync(job.file(`${command}/model.safetensors`)), command);
  }
});

for (const [signal, exitCode] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  test(`${signal} ends the run after its step and says that nothing is saved`, async (t) => {
    const job = await createJob(t);
    const file = await job.writeJob({ engine_module: fakeEngine, max_steps: 1_000_000 });
    const child = spawn(
      process.execPath,
      [join(packageRoot, "bin/lockstep"), "train-local", file],
      { cwd: job.directory, env: { ...process.env, LOCKSTEP_CACHE: job.file("cache") } },
    );
    const lines: string[] = [];
    createInterface({ input: child.stdout }).on("line", (line) => {
      lines.push(line);
      if (line.startsWith("step 3/")) child.kill(signal);
    });
    const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
    assert.equal(code, exitCode, lines.slice(-3).join("\n"));
    assert.match(lines.at(-1) ?? "", /^stopped after step \d+ of 1000000; nothing is saved/);
    assert.ok(lines.some((line) => line.startsWith("stopping after this step")));
    assert.ok(!existsSync(job.file("out/model.safetensors")));
  });
}

test("threads that nobody asked for make no other run of a second start", async (t) => {
  const job = await createJob(t);
  for (const workers of [1, 2]) {
    const file = await job.writeJob({
      ...{ engine_module: fakeEngine, workers, threads_per_worker: null },
      ...{
        global_batch_size: 2,
        per_device_train_batch_size: 1,
        gradient_accumulation_steps: 2 / workers,
      },
      ...{ gradient_groups: 2, overwrite_output_dir: false },
    });
    const { code, stderr } = await job.lockstep(["train-local", file]);
    assert.equal(code, 0, stderr);
  }
});
