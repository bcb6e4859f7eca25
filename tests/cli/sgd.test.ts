import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";

// A run with SGD from its configuration to its masters, on an engine that needs no TensorFlow.

const settings = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  ...{ optim: "sgd", optim_args: "momentum=0.9, nesterov=True", weight_decay: 0.1 },
  ...{ learning_rate: 1e-2, max_steps: 6 },
};

async function createJob(t: TestContext): Promise<CaseJob> {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  return job;
}

test("one process, two workers and a run that is resumed end with the same masters", async (t) => {
  const job = await createJob(t);
  const spread = { workers: 2, per_device_train_batch_size: 1 };
  const file = await job.writeJob({ ...settings, ...spread });
  const local = await job.lockstep(["train-local", file]);
  assert.equal(local.code, 0, local.stderr);
  const digest = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
  const saving = ["--json-logs", "--output_dir", "cluster", "--save_strategy", "steps"];
  const train = ["train", file, ...saving, "--save_steps", "3"];
  const cluster = await job.lockstep(train);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(cluster.of("run.completed")[0]?.mastersSha256, digest);
  const again = [...train.slice(0, 2), "--json-logs", "--output_dir", "again"];
  const from = ["--resume_from_checkpoint", "cluster/checkpoint-3"];
  const resumed = await job.lockstep([...again, ...from, "--reducer_shards", "1"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(resumed.of("run.completed")[0]?.mastersSha256, digest);
  await job.writeJob({ ...settings, ...spread, optim: "adamw_torch", optim_args: null });
  const other = await job.lockstep(["train", file, "--output_dir", "again", ...from]);
  assert.equal(other.code, 1);
  assert.match(other.stderr, /E_RESUME_MISMATCH.*optim was "sgd" and is now "adamw"/);
  assert.match(other.stderr, /optim_args was \{"dampening":0,"momentum":0.9,"nesterov":true\}/);
});

test("arguments that SGD does not have, or that do not go together, are refused by name", async (t) => {
  const job = await createJob(t);
  for (const [args, message] of [
    ["beta=1", /^E_CONFIG_INVALID: optim_args must be momentum=VALUE \(a number of at least 0\), /],
    ["momentum=fast", /got "momentum=fast" \(.*changed\.yaml:\d+\)/],
    ["momentum=0.9,momentum=0.8", /each at most once, got /],
    ["momentum=-1", /^E_CONFIG_INVALID: optim_args/],
    ["dampening=0.1", /^E_CONFIG_CONFLICT: .*dampening is of the momentum, which is 0/],
    ["momentum=0x1", /^E_CONFIG_INVALID: /],
    ["nesterov=true", /^E_CONFIG_CONFLICT: .*nesterov.* needs a momentum above 0/],
    ["momentum=0.9,nesterov=true,dampening=0.1", /^E_CONFIG_CONFLICT: /],
  ] as const) {
    const file = await job.writeJob({ ...settings, optim_args: args });
    const { code, stderr } = await job.lockstep(["train-local", file]);
    assert.equal(code, 1, args);
    assert.match(stderr, message, args);
  }
  const adamW = { ...settings, optim: "adamw_torch", optim_args: "momentum=0.9" };
  const refused = await job.lockstep(["train-local", await job.writeJob(adamW)]);
  assert.match(refused.stderr, /optim_args must be null, since adamw_torch takes none, got/);
  const file = await job.writeJob({ ...settings, adam_beta1: 0.5, max_steps: 1 });
  const warned = await job.lockstep(["train-local", file]);
  assert.equal(warned.code, 0, warned.stderr);
  assert.match(
    `${warned.stderr}${warned.lines.join("\n")}`,
    /adam_beta1 has no effect: optim is sgd/,
  );
});
