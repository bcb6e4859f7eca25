import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";

// Runs with other optimizers than AdamW from their configuration to their masters, on an engine that needs no
// TensorFlow; tests/cli/sgd.test.ts has SGD's.

const common = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  ...{ weight_decay: 0.1, learning_rate: 1e-3, max_steps: 6 },
};

async function createJob(t: TestContext): Promise<CaseJob> {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  return job;
}

for (const optimizer of [
  { optim: "adam" },
  { optim: "adamw_8bit" },
  { optim: "lion_32bit", adam_beta2: 0.99 },
  { optim: "adafactor" },
  { optim: "adafactor", optim_args: { beta1: 0.9, scale_parameter: true } },
]) {
  test(`one process, two workers and a resumed run end with the same masters: ${JSON.stringify(optimizer)}`, async (t) => {
    const job = await createJob(t);
    const spread = { workers: 2, per_device_train_batch_size: 1 };
    const file = await job.writeJob({ ...common, ...spread, ...optimizer });
    const local = await job.lockstep(["train-local", file]);
    assert.equal(local.code, 0, local.stderr);
    const digest = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
    assert.ok(digest !== undefined);
    const train = ["train", file, "--json-logs", "--reducer_shards"];
    const saving = ["--output_dir", "cluster", "--save_strategy", "steps", "--save_steps", "3"];
    const cluster = await job.lockstep([...train, "2", ...saving]);
    assert.equal(cluster.code, 0, cluster.stderr);
    assert.equal(cluster.of("run.completed")[0]?.mastersSha256, digest);
    const from = ["--resume_from_checkpoint", "cluster/checkpoint-3", "--output_dir", "again"];
    const resumed = await job.lockstep([...train, "1", ...from]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(resumed.of("run.completed")[0]?.mastersSha256, digest);
    if (optimizer.optim !== "adafactor") return;
    const args = { optim_args: { ...optimizer.optim_args, clip_threshold: 2 } };
    await job.writeJob({ ...common, ...spread, ...optimizer, ...args });
    const other = await job.lockstep([...train, "1", ...from]);
    assert.equal(other.code, 1);
    assert.match(other.stderr, /E_RESUME_MISMATCH.*optim_args was \{.*clip_threshold\\":1,/);
  });
}

test("what an optimizer does not do is refused by name", async (t) => {
  const job = await createJob(t);
  for (const [settings, message] of [
    [
      { optim: "ademamix" },
      /^E_CONFIG_INVALID: optim must be one of adamw_torch_fused, .*adafactor.*, got "?ademamix/,
    ],
    [
      { optim: "adafactor", optim_args: "relative_step=True" },
      /^E_CONFIG_CONFLICT: .*relative_step in optim_args, and learning_rate/,
    ],
    [
      { optim: "adafactor", optim_args: { warmup_init: true } },
      /^E_CONFIG_CONFLICT: .*warmup_init/,
    ],
    [{ optim: "adafactor", optim_args: { momentum: 0.9 } }, /got \{"momentum":0.9\}/],
    [{ optim: "lion_32bit", optim_args: "beta1=0.9" }, /since lion_32bit takes none/],
  ] as const) {
    const file = await job.writeJob({ ...common, ...settings });
    const { code, stderr } = await job.lockstep(["train-local", file]);
    assert.equal(code, 1, JSON.stringify(settings));
    assert.match(stderr, message);
  }
});

test("names of other tools are told, or mean the same", async (t) => {
  const job = await createJob(t);
  const paged = await job.writeJob({ ...common, optim: "paged_lion_32bit", max_steps: 1 });
  const told = await job.lockstep(["train-local", paged]);
  assert.equal(told.code, 0, told.stderr);
  assert.match(
    `${told.stderr}${told.lines.join("\n")}`,
    /paged_lion_32bit is lion_32bit here: states are not paged/,
  );
  const file = await job.writeJob({ adafactor: true });
  const resolved = await job.lockstep(["config", file]);
  assert.equal(resolved.code, 0, resolved.stderr);
  assert.match(resolved.lines.join("\n"), /^optim: adafactor$/m);
});
