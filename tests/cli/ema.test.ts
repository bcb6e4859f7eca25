import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { createCaseJob } from "#tests/support/case-job";

// Runs that keep an average of their weights, on an engine that needs no TensorFlow.

const settings = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  ...{ workers: 2, per_device_train_batch_size: 1 },
  ...{ learning_rate: 1e-2, max_steps: 6, ema_decay: 0.8, output_dir: "local" },
};

async function readAll(directory: string): Promise<Map<string, Float32Array>> {
  const weights = await ModelWeights.open(directory);
  const all = new Map<string, Float32Array>();
  for (const name of weights.names()) all.set(name, await weights.readFloat32(name));
  await weights.close();
  return all;
}

test("one process, two workers and a resumed run save the same average, and checkpoints theirs", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const file = await job.writeJob(settings);
  const local = await job.lockstep(["train-local", file]);
  assert.equal(local.code, 0, local.stderr);
  const train = ["train", file, "--json-logs", "--save_strategy", "steps"];
  for (const args of [
    ["--output_dir", "cluster", "--save_steps", "1"],
    ["--output_dir", "resumed", "--resume_from_checkpoint", "cluster/checkpoint-3"],
  ]) {
    const { code, stderr } = await job.lockstep([...train, ...args, "--reducer_shards", "1"]);
    assert.equal(code, 0, stderr);
  }
  const weights = await readAll(job.file("local"));
  const average = await readAll(job.file("local/ema"));
  assert.deepEqual([...average.keys()], [...weights.keys()]);
  const namesIn = async (directory: string): Promise<string[]> => (await readdir(directory)).sort();
  assert.deepEqual(await namesIn(job.file("local/ema")), await namesIn(job.modelDirectory));
  for (const other of ["cluster", "resumed", "cluster/checkpoint-6"]) {
    assert.deepEqual(await readAll(job.file(other)), weights, other);
    assert.deepEqual(await readAll(job.file(`${other}/ema`)), average, other);
  }
  // The average of the weights that the checkpoints hold.
  const expected = new Map<string, Float64Array>();
  for (let step = 1; step <= 6; step++) {
    for (const [name, values] of await readAll(job.file(`cluster/checkpoint-${step}`))) {
      const before = expected.get(name);
      expected.set(
        name,
        before?.map((value, i) => value * 0.8 + (values[i] as number) * 0.2) ??
          Float64Array.from(values),
      );
    }
    for (const [name, values] of await readAll(job.file(`cluster/checkpoint-${step}/ema`))) {
      values.forEach((value, i) => {
        const wanted = expected.get(name)?.[i] as number;
        if (Math.abs(value - wanted) > 1e-6) assert.fail(`${name}[${i}]: ${value}, not ${wanted}`);
      });
    }
  }
  const changed = await job.lockstep(
    [...train, "--output_dir", "other", "--resume_from_checkpoint", "cluster/checkpoint-3"].concat([
      ...["--ema_decay", "0.9"],
    ]),
  );
  assert.match(changed.stderr, /E_RESUME_MISMATCH.*ema_decay was 0.8 and is now 0.9/);
  await job.writeJob({ ...settings, ema_decay: null });
  const clean = await job.lockstep([...train, "--output_dir", "cluster", "--overwrite_output_dir"]);
  assert.equal(clean.code, 0, clean.stderr);
  assert.ok(!existsSync(job.file("cluster/ema")));
});

test("the best checkpoint is the result with its own average", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const file = await job.writeJob({
    ...settings,
    ...{ validation_split: 2, eval_strategy: "steps", eval_steps: 2, save_strategy: "steps" },
    ...{ save_steps: 2, load_best_model_at_end: true, output_dir: "best", greater_is_better: true },
  });
  const { code, stderr, of } = await job.lockstep(["train", file, "--json-logs"]);
  assert.equal(code, 0, stderr);
  const losses = of("evaluation.completed").map(({ loss }) => loss);
  const best = 2 * (1 + losses.indexOf(Math.max(...losses)));
  for (const folder of ["", "/ema"]) {
    const kept = await readAll(job.file(`best/checkpoint-${best}${folder}`));
    assert.deepEqual(await readAll(job.file(`best${folder}`)), kept);
  }
});

test("a folder of somebody's own is no place for the average, and one of an earlier run is", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const file = await job.writeJob(settings);
  const train = (...args: string[]) => job.lockstep(["train-local", file, ...args]);
  const notes = job.file("local/ema/notes.txt");
  await mkdir(job.file("local/ema"), { recursive: true });
  await writeFile(notes, "mine");
  for (const args of [[], ["--overwrite_output_dir"]]) {
    const { code, stderr } = await train(...args);
    assert.equal(code, 1);
    assert.match(stderr, /E_CONFIG_CONFLICT: .*ema_decay and output_dir.*ema\/notes.txt.*move it/);
  }
  assert.equal(await readFile(notes, "utf8"), "mine");
  await rm(notes);
  assert.equal((await train()).code, 0);
  const again = await train("--overwrite_output_dir", "--ema_decay", "0.5");
  assert.equal(again.code, 0, again.stderr);
  assert.ok(existsSync(job.file("local/ema/model.safetensors")));
});
