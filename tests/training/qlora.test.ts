import assert from "node:assert/strict";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { AdapterDirectory } from "#lib/checkpoint/peft/index";
import { adapterFacts } from "#lib/models/facts";
import { mastersOf, runJob, WorkerKiller } from "#tests/support/job-runs";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// QLoRA in the whole command, with the real engine in real processes.

let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    ...{ use_peft: true, lora_r: 4, lora_alpha: 8, lora_target_modules: "all-linear" },
    ...{ load_in_4bit: true, bnb_4bit_use_double_quant: true },
    ...{ learning_rate: 1e-2, max_steps: 6, global_batch_size: 8, gradient_groups: 4 },
  });
});
after(() => job.remove());

const run = (
  ...[command, name, args, onEvent]: Parameters<typeof runJob> extends [unknown, ...infer Rest]
    ? Rest
    : never
) => runJob(job, command, name, args, onEvent);

for (const [precision, workers] of [
  ["--bf16", [1, 2]],
  ["--no-bf16", [2]],
] as const) {
  test(`one process and a cluster end with the same adapter over 4-bit weights (${precision})`, async () => {
    const local = await run("train-local", `local${precision}`, [precision]);
    assert.match(
      local.lines.join("\n"),
      /QLoRA: [\d,]+ of [\d,]+ frozen weights are in 4 bits \(nf4, scales in 8 bits\)/,
    );
    const expected = mastersOf(local);
    for (const numWorkers of workers) {
      const name = `workers-${numWorkers}${precision}`;
      const cluster = await run("train", name, [precision, "--workers", String(numWorkers)]);
      assert.equal(mastersOf(cluster), expected, name);
    }
    // The copies of forward in backward make their weights for themselves.
    const recomputed = ["--gradient-checkpointing", precision];
    assert.equal(mastersOf(await run("train-local", `again${precision}`, recomputed)), expected);
  });
}

test("a run whose worker is killed, and one that is resumed, end with the same adapter", async () => {
  const saving = ["--save-strategy", "steps", "--save-steps", "3", "--eval-strategy", "no"];
  const whole = await run("train", "whole", saving);
  const expected = mastersOf(whole);
  const checkpoint = join(job.directory, "whole", "checkpoint-3");
  const resumed = await run("train", "resumed", [
    ...saving,
    "--resume-from-checkpoint",
    checkpoint,
  ]);
  assert.equal(mastersOf(resumed), expected);
  const killer = new WorkerKiller(2);
  const broken = await run("train", "killed", saving, killer.onEvent);
  killer.assertLost(broken);
  assert.equal(mastersOf(broken), expected);
});

test("what is saved is an adapter of the base as it is, and another form of it is another run", async () => {
  const output = join(job.directory, "whole");
  const base = await ModelWeights.open(join(job.directory, "model"));
  const adapter = await AdapterDirectory.open(output);
  adapter.checkAgainst({
    facts: adapterFacts({ model_type: "llama" }),
    weights: base.names().map((name) => ({ name, shape: base.info(name).shape })),
  });
  assert.equal(adapter.config.base_model_name_or_path, join(job.directory, "model"));
  await adapter.close();
  await base.close();
  const [file] = (await readdir(output)).filter((name) => name.endsWith(".safetensors"));
  const { size } = await stat(join(output, file as string));
  assert.ok(size < 200_000, `${size} bytes`);
  const checkpoint = join(output, "checkpoint-3");
  const double = ["--load-in-4bit", "--bnb-4bit-use-double-quant"];
  for (const [form, isOwn, ...flags] of [
    ["stored", false],
    ["4 bits", false, "--load-in-4bit"],
    ["its own", true, ...double],
  ] as const) {
    const merged = await lockstepCommand(
      ["merge-adapter", checkpoint, join(job.directory, form), ...flags],
      join(job.directory, "cache"),
    );
    assert.equal(merged.code, 0, merged.stderr);
    const warned =
      /trained beside weights of 4 bits .*, and merged into weights .*; --load-in-4bit --bnb/;
    assert.equal(warned.test(merged.stderr), !isOwn, merged.stderr);
  }
  const args = ["--no-load-in-4bit", "--resume-from-checkpoint", checkpoint];
  const { code, stderr } = await run("train", "wide", args);
  assert.equal(code, 1);
  assert.match(stderr, /E_RESUME_MISMATCH.*load_in_4bit was true and is now false/);
  const dora = await run("train-local", "dora", ["--use-dora"]);
  assert.equal(dora.code, 1);
  assert.match(dora.stderr, /E_CONFIG_CONFLICT: .*use_dora and load_in_4bit/);
});
