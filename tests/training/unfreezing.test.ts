import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { assertSameBits } from "#tests/support/same-bits";
import { createTinyClassifier } from "#tests/support/tiny-classifier";
import { createTinyJob } from "#tests/support/tiny-job";

const withoutEvaluations = { saveSteps: 2, ofTwo: ["--eval-strategy", "no"] } as const;

// Gradual unfreezing in the whole command, with the real engine: whoever computes, and from wherever it goes on, a
// run opens the same at the same update and ends with the same bits. The resumed one goes on between two openings.

const steps = { max_steps: 4, global_batch_size: 8, gradient_groups: 2, learning_rate: 1e-2 };

test("a Llama whose layers open from the top: the same bits, and what is not open does not move", async (t) => {
  const job = await createTinyJob({ ...steps, unfreeze_steps: 3, weight_decay: 0.1 });
  t.after(job.remove);
  const lines = (await assertSameBits(job, withoutEvaluations)).local.lines.join("\n");
  const [, told = ""] = /gradual unfreezing: (.*)/.exec(lines) ?? [];
  assert.match(told, /from update 1, .* from update 4/);
  assert.match(lines, /warning: the run ends after 4 steps, .*: .*embeddings/);
  const opened = lines.split("\n").filter((line) => line.startsWith("unfreezing: "));
  assert.equal(opened.length, 1);
  assert.match(opened[0] ?? "", /trained from update 4 on; [\d,]+ parameters are open/);

  const [base, saved] = await Promise.all(
    ["model", "two"].map((name) => ModelWeights.open(join(job.directory, name))),
  );
  for (const name of base?.names() ?? []) {
    const before = await base?.readFloat32(name);
    const after = await saved?.readFloat32(name);
    const stays = after?.every((value, i) => Object.is(value, before?.[i]));
    assert.equal(stays, name.includes("embed_tokens"), name);
  }
  await base?.close();
  await saved?.close();
});

for (const [what, settings] of [
  ["Adafactor with an average", { optim: "adafactor", ema_decay: 0.5 }],
  ["float16 with a loss scale", { fp16: true }],
] as const) {
  test(`unfreezing with ${what}: the same bits whoever computes`, async (t) => {
    const job = await createTinyJob({ ...steps, ...settings, unfreeze_steps: 3 });
    t.after(job.remove);
    const lines = (await assertSameBits(job, withoutEvaluations)).local.lines.join("\n");
    assert.match(
      lines,
      /unfreezing: what is above the layers from update 1, layer 0 from update 4/,
    );
  });
}

for (const [what, settings] of [
  ["LoRA", { use_peft: true, lora_target_modules: "all-linear", learning_rate: 1e-2 }],
  ["the last two layers, in bfloat16", { finetuning_type: "freeze", bf16: true }],
] as const) {
  test(`unfreezing of BERT with ${what}: the same bits whoever computes`, async (t) => {
    const asked = { ...steps, ...settings, unfreeze_steps: 1 };
    const job = await createTinyClassifier("bert", { settings: asked });
    t.after(job.remove);
    const lines = (await assertSameBits(job, withoutEvaluations)).local.lines.join("\n");
    assert.match(
      lines,
      /above the layers from update 1, layer 1 from update 2, layer 0 from update 3/,
    );
    assert.match(lines, /\nunfreezing: layer 0, trained from update 3 on/);
  });
}

test("a classifier's head begins alone, and the keys decide which run it is", async (t) => {
  const settings = { ...steps, unfreeze_epochs: 1, unfreeze_layers: 2, num_train_epochs: 3 };
  const job = await createTinyClassifier("bert", { settings });
  t.after(job.remove);
  const saving = ["--save-strategy", "steps", "--save-steps", "2"];
  const run = await runJob(job, "train", "out", saving);
  mastersOf(run);
  const said = (run.of("run.started")[0]?.dataLines ?? []).join("\n");
  assert.match(
    said,
    /gradual unfreezing: what is above the layers from update 1, layers 0 to 1 from/,
  );
  const checkpoint = join(job.directory, "out", "checkpoint-2");
  const resuming = ["--resume-from-checkpoint", checkpoint];
  const other = await runJob(job, "train", "other", [...resuming, "--unfreeze-layers", "1"]);
  assert.match(other.stderr, /E_RESUME_MISMATCH.*unfreeze_layers was 2 and is now (null|1)/);
  mastersOf(await runJob(job, "train-local", "biases", ["--finetuning-type", "bitfit"]));
  const refused = await runJob(job, "train-local", "refused", ["--unfreeze-steps", "1"]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /unfreeze_steps and unfreeze_epochs .*both say/);
});
