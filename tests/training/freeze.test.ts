import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { loadConfig } from "#lib/config/index";
import { prepareRun } from "#run/prepare";
import type { LockstepEvent } from "#lib/core/events";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { mastersOf, WorkerKiller } from "#tests/support/job-runs";

// Freezing in the whole command, with the real engine in real processes.

let job: CaseJob;
before(async () => {
  job = await createCaseJob("23-train-local-keys");
});
after(() => job.remove());

const settings = {
  ...{ finetuning_type: "freeze", freeze_trainable_layers: 1, freeze_extra_modules: "lm_head" },
  ...{ learning_rate: 1e-2, max_steps: 4, global_batch_size: 4, gradient_groups: 2 },
  ...{ per_device_train_batch_size: 1, threads_per_worker: 1, use_cpu: true },
};

async function run(
  command: "train" | "train-local",
  name: string,
  changes: Readonly<Record<string, unknown>>,
  onEvent?: (event: LockstepEvent) => void,
) {
  const output_dir = job.file(name);
  const dataset = job.file("sums.jsonl");
  const places = { model_name_or_path: job.modelDirectory, dataset, output_dir };
  const file = await job.writeJob({ ...settings, ...places, ...changes }, `${name}.yaml`);
  const outcome = await job.lockstep(
    [command, file, ...(command === "train" ? ["--json-logs"] : [])],
    onEvent,
  );
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome;
}

for (const bf16 of [true, false]) {
  test(`one process, one and two workers, and a killed one end with the same layers (bf16: ${bf16})`, async () => {
    const local = await run("train-local", `local-${bf16}`, { bf16 });
    const expected = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
    assert.ok(expected !== undefined, local.lines.join("\n"));
    assert.match(local.lines.join("\n"), /the last 1 of 2 layers and lm_head: /);
    for (const workers of [1, 2]) {
      const cluster = await run("train", `workers-${workers}-${bf16}`, { bf16, workers });
      assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected);
    }
    const killer = new WorkerKiller(1);
    const broken = await run("train", `killed-${bf16}`, { bf16, workers: 2 }, killer.onEvent);
    killer.assertLost(broken);
    assert.equal(mastersOf(broken), expected);
  });
}

test("a whole model is saved, what stays has its bits, and a resumed run ends with the same one", async () => {
  const saving = { bf16: true, save_strategy: "steps", save_steps: 2 };
  const whole = await run("train", "whole", saving);
  const checkpoint = join(job.file("whole"), "checkpoint-2");
  const resumed = await run("train", "resumed", { ...saving, resume_from_checkpoint: checkpoint });
  const [sha256] = whole.of("run.completed").map((event) => event.mastersSha256);
  assert.equal(resumed.of("run.completed")[0]?.mastersSha256, sha256);
  const base = await ModelWeights.open(job.modelDirectory);
  for (const directory of [job.file("whole"), checkpoint]) {
    const saved = await ModelWeights.open(directory);
    assert.deepEqual(saved.names(), base.names());
    for (const name of saved.names()) {
      const isTrained = name === "lm_head.weight" || name.startsWith("model.layers.1.");
      const values = await saved.readFloat32(name);
      const stays = Buffer.from(values.buffer).equals(
        Buffer.from((await base.readFloat32(name)).buffer),
      );
      assert.equal(stays, !isTrained, name);
    }
    await saved.close();
  }
  await base.close();
});

test("a step exchanges the trained layers alone", async () => {
  const numTrained = async (finetuning_type: string): Promise<number> => {
    const places = { model_name_or_path: job.modelDirectory, dataset: job.file("sums.jsonl") };
    const file = await job.writeJob({ ...settings, ...places, finetuning_type });
    const { job: prepared, close } = await prepareRun((await loadConfig([file])).config);
    await close();
    return prepared.layout.tensors.reduce((sum, { size }) => sum + size, 0);
  };
  const [some, all] = [await numTrained("freeze"), await numTrained("full")];
  assert.ok(some < 0.6 * all, `${some} of ${all} elements`);
});

test("a run of other layers is another run", async () => {
  const places = { model_name_or_path: job.modelDirectory, dataset: job.file("sums.jsonl") };
  const file = await job.writeJob({
    ...{ ...settings, ...places, bf16: true, freeze_trainable_layers: -1 },
    ...{ output_dir: job.file("other"), save_strategy: "steps", save_steps: 2 },
    resume_from_checkpoint: join(job.file("whole"), "checkpoint-2"),
  });
  const outcome = await job.lockstep(["train", file]);
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /E_RESUME_MISMATCH.*freeze_trainable_layers was 1 and is now -1/);
});
