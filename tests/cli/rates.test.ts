import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { createCaseJob } from "#tests/support/case-job";

// Runs with rates of their own for parts of the model, on an engine that needs no TensorFlow.

const settings = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  ...{ workers: 2, per_device_train_batch_size: 1, learning_rate: 1e-2, max_steps: 6 },
};
const groups = [
  { name: "queries", modules: ["q_proj", "layers.0.mlp"], lr: 2e-3 },
  { name: "norm", modules: ["model.norm"], lr: 0.03 },
];

test("one process, two workers and a run that is resumed end with the same masters", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const digests = new Set<string | undefined>();
  for (const [name, rates] of [
    ["groups", { lr_groups: groups, embedding_lr: 1e-4 }],
    ["layers", { layerwise_lr_decay: 0.5 }],
    ["plain", {}],
  ] as const) {
    const file = await job.writeJob({ ...settings, ...rates }, `${name}.yaml`);
    const local = await job.lockstep(["train-local", file, "--output_dir", `${name}-local`]);
    assert.equal(local.code, 0, local.stderr);
    const lines = local.lines.join("\n");
    const digest = /masters sha256 ([0-9a-f]{64})/.exec(lines)?.[1];
    assert.equal(/learning rates: /.test(lines), name !== "plain", lines);
    const train = ["train", file, "--json-logs", "--save_strategy", "steps", "--save_steps", "3"];
    const cluster = await job.lockstep([...train, "--output_dir", name]);
    assert.equal(cluster.code, 0, cluster.stderr);
    assert.equal(cluster.of("run.completed")[0]?.mastersSha256, digest);
    const from = ["--resume_from_checkpoint", `${name}/checkpoint-3`, "--reducer_shards", "1"];
    const resumed = await job.lockstep([...train, "--output_dir", `${name}-again`, ...from]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(resumed.of("run.completed")[0]?.mastersSha256, digest);
    digests.add(digest);
    const other = await job.lockstep([...train, ...from, "--layerwise_lr_decay", "0.9"]);
    assert.match(other.stderr, /E_RESUME_MISMATCH.*layerwise_lr_decay was (null|0\.5|not there)/);
  }
  assert.equal(digests.size, 3);
});

test("parts that are not there, and keys that do not go together, are refused by name", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  for (const [changes, message] of [
    [
      { lr_groups: [{ ...groups[0], modules: ["qproj"] }] },
      /E_CONFIG_INVALID: lr_groups must be .*got "qproj" in/,
    ],
    [
      { lr_groups: [{ name: "a", lr: 1 }] },
      /E_CONFIG_INVALID: lr_groups.* must be a list of mappings with name \(text\)/,
    ],
    [
      { embedding_lr: 1, embedding_lr_scale: 2 },
      /E_CONFIG_CONFLICT: .*both name the rate of embeddings/,
    ],
    [{ loraplus_lr_ratio: 16 }, /E_CONFIG_MISSING_KEY: .*use_peft/],
    [
      { layerwise_lr_decay: 1.5 },
      /E_CONFIG_INVALID: layerwise_lr_decay must be a number of more than 0/,
    ],
  ] as const) {
    const file = await job.writeJob({ ...settings, ...changes });
    const { code, stderr } = await job.lockstep(["train-local", file]);
    assert.equal(code, 1);
    assert.match(stderr, message);
  }
});

test("a decay where all that is trained are vectors is told of; one that decays something is not", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  for (const [part, isTold] of [
    ["input_layernorm", true],
    ["mlp", false],
  ] as const) {
    const file = await job.writeJob({
      ...{ ...settings, max_steps: 1, weight_decay: 0.1, output_dir: part },
      ...{ finetuning_type: "freeze", freeze_trainable_modules: part },
    });
    const { code, stderr, lines } = await job.lockstep(["train-local", file]);
    assert.equal(code, 0, stderr);
    const told = /warning: weight_decay has no effect: all that is trained are biases and norms/;
    assert.equal(told.test(lines.join("\n")), isTold, part);
  }
});
