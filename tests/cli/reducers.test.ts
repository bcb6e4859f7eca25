import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";

// `lockstep train` with processes for its shards, which load and keep what threads do.

const common = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  ...{ learning_rate: 1e-3, max_steps: 6, workers: 2, per_device_train_batch_size: 1 },
};

async function createJob(t: TestContext): Promise<CaseJob> {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  return job;
}

for (const [name, settings] of Object.entries({
  "all weights": { optim: "adamw_8bit" },
  "adapters beside frozen weights": { use_peft: true, optim: "adafactor" },
  "adapters beside weights of 4 bits": { use_peft: true, load_in_4bit: true },
  "some layers": { finetuning_type: "freeze", freeze_trainable_layers: 1 },
})) {
  test(`processes end with the bits of threads, and so does a run that goes on: ${name}`, async (t) => {
    const job = await createJob(t);
    const file = await job.writeJob({ ...common, ...settings });
    const train = ["train", file, "--json-logs"];
    const threads = await job.lockstep([...train, "--output_dir", "threads"]);
    assert.equal(threads.code, 0, threads.stderr);
    const digest = threads.of("run.completed")[0]?.mastersSha256;
    assert.match(String(digest), /^[0-9a-f]{64}$/);
    const saving = ["--output_dir", "cluster", "--save_strategy", "steps", "--save_steps", "3"];
    const processes = await job.lockstep([...train, "--reducer_processes", "2", ...saving]);
    assert.equal(processes.code, 0, processes.stderr);
    assert.equal(processes.of("run.completed")[0]?.mastersSha256, digest);
    const from = ["--resume_from_checkpoint", "cluster/checkpoint-3", "--output_dir", "again"];
    const resumed = await job.lockstep([...train, "--reducer_processes", "3", ...from]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(resumed.of("run.completed")[0]?.mastersSha256, digest);
  });
}
