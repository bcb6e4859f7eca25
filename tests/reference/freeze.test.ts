import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { readTrainerState } from "#lib/checkpoint/index";
import { loadConfig } from "#lib/config/index";
import type { Batch, FieldArray } from "#lib/core/batch";
import { prepareRun } from "#run/prepare";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { needsPeers, runPeers } from "#tests/support/peers";

// Ten steps over some layers are those of torch with requires_grad off elsewhere. See freeze_steps.py.

const numSteps = 10;
const settings = {
  ...{ learning_rate: 1e-3, weight_decay: 0.1, adam_epsilon: 1e-6, max_grad_norm: 0.5 },
  ...{ lr_scheduler_type: "constant", max_steps: numSteps, packing: false, bf16: false },
  ...{ per_device_train_batch_size: 2, gradient_accumulation_steps: 2, save_dtype: "float32" },
};

const cases = [
  { layers: 1, modules: ["all"], extra: [], trains: /^model\.layers\.1\./ },
  { layers: -1, modules: ["mlp"], extra: [], trains: /^model\.layers\.0\.mlp\./ },
  {
    ...{ layers: 1, modules: ["self_attn", "input_layernorm"], extra: ["lm_head", "norm"] },
    trains: /^(lm_head|model\.layers\.1\.self_attn|.*norm)\./,
  },
] as const;

const jobs: CaseJob[] = [];
after(async () => {
  for (const job of jobs) await job.remove();
});

const rowsOf = (values: FieldArray, numRows: number): number[][] =>
  Array.from({ length: numRows }, (_, row) => {
    const width = values.length / numRows;
    return [...values.subarray(row * width, (row + 1) * width)];
  });

const plain = ({ numRows, fields }: Batch) => ({
  tokens: rowsOf(fields["tokens"] ?? new Int32Array(), numRows),
  targets: rowsOf(fields["targets"] ?? new Int32Array(), numRows),
});

async function trained({ layers, modules, extra }: (typeof cases)[number]) {
  const job = await createCaseJob("23-train-local-keys");
  jobs.push(job);
  const file = await job.writeJob({
    ...settings,
    ...{ finetuning_type: "freeze", freeze_trainable_layers: layers },
    ...{ freeze_trainable_modules: modules.join(), freeze_extra_modules: extra.join() || null },
    output_dir: job.file("out"),
    dataset: job.file("sums.jsonl"),
    model_name_or_path: job.modelDirectory,
  });
  const run = await prepareRun((await loadConfig([file])).config);
  const steps = Array.from({ length: numSteps }, (_, step) =>
    Array.from({ length: run.config.gradient_groups }, (__, group) =>
      run.plan.microBatches(step, group).map(plain),
    ).flat(),
  );
  await run.close();
  const outcome = await job.lockstep(["train-local", file]);
  assert.equal(outcome.code, 0, outcome.stderr);
  const { log_history: history } = await readTrainerState(job.file("out"));
  const logged = history.filter((entry) => "grad_norm" in entry);
  return {
    ...{ model: job.modelDirectory, output: job.file("out"), layers, modules, extra, steps },
    settings,
    losses: logged.map((entry) => entry["loss"]),
    norms: logged.map((entry) => entry["grad_norm"]),
  };
}

const runs: Awaited<ReturnType<typeof trained>>[] = [];
before(async () => {
  if (needsPeers().skip !== undefined) return;
  for (const each of cases) runs.push(await trained(each));
});

test("ten steps over some layers are torch's, and nothing else moves", needsPeers(), async () => {
  const manifest = jobs[0]?.file("manifest.json") ?? "";
  await writeFile(manifest, JSON.stringify(runs));
  const lines = (await runPeers("freeze_steps.py", [manifest])).trimEnd().split("\n");
  assert.equal(lines.length, cases.length);
  for (const [index, { trains }] of cases.entries()) {
    const {
      trained: names,
      moved,
      ...differences
    } = JSON.parse(lines[index] ?? "") as {
      readonly trained: readonly string[];
      readonly moved: readonly string[];
      readonly loss: number;
      readonly norm: number;
      readonly weights: number;
    };
    assert.ok(names.length > 0 && names.every((name) => trains.test(name)), names.join());
    assert.deepEqual(moved, []);
    for (const [what, difference] of Object.entries(differences)) {
      assert.ok(difference < 1e-6, `case ${index}: ${what} differs by ${difference}`);
    }
  }
});
