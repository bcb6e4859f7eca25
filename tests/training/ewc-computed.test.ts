import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// As ewc.test.ts, with the gradients of real models.

const saving = ["--save-strategy", "steps", "--save-steps", "2", "--eval-strategy", "no"];

const jobs: TinyJob[] = [];
after(async () => {
  for (const { remove } of jobs) await remove();
});

async function ewcJob(settings: Readonly<Record<string, unknown>>): Promise<TinyJob> {
  const job = await createTinyJob({
    ...{ max_steps: 4, global_batch_size: 8, gradient_groups: 2 },
    ...{ sample_prompt: null, eval_on_start: false, ...settings },
  });
  jobs.push(job);
  return job;
}

const general = ({ directory }: TinyJob): string[] => [
  ...["--general-dataset", join(directory, "4.txt")],
];

for (const [name, settings] of [
  ["all weights", {}],
  ["all weights in bf16", { bf16: true }],
  ["LoRA", { use_peft: true, lora_r: 4, learning_rate: 1e-2 }],
] as const) {
  test(`${name}, computed for real: one process, two workers and from the middle`, async () => {
    const real = await ewcJob({ ...settings, ewc_samples: 20, ewc_lambda: 10 });
    const bits = mastersOf(await runJob(real, "train-local", "local", general(real)));
    const two = [...general(real), "--workers", "2", ...saving];
    assert.equal(mastersOf(await runJob(real, "train", "two", two)), bits);
    const checkpoint = join(real.directory, "two", "checkpoint-2");
    const resuming = [...general(real), "--workers", "1", ...saving];
    const resumed = await runJob(real, "train", "resumed", [
      ...[...resuming, "--resume-from-checkpoint", checkpoint],
    ]);
    assert.equal(mastersOf(resumed), bits);
  });
}

test("weights of general rows change nothing of what the Fisher information comes to", async () => {
  const real = await ewcJob({ packing: false, columns: { weight: "w" }, eval_dataset: null });
  const write = async (name: string, weightOf: (row: number) => number): Promise<string> => {
    const file = join(real.directory, name);
    const rows = Array.from({ length: 16 }, (_, i) => ({
      text: `the state of ${"peace law people ".repeat(1 + (i % 3))}`,
      w: weightOf(i),
    }));
    await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    return file;
  };
  const own = await write("own.jsonl", (i) => 1 + (i % 2));
  const one = await write("one.jsonl", () => 1);
  const uneven = await write("uneven.jsonl", (i) => (i % 2 === 0 ? 100 : 1));
  const args = (file: string): string[] => [
    ...["--dataset", own, "--general-dataset", file, "--ewc-samples", "12", "--ewc-lambda", "10"],
  ];
  const bits = mastersOf(await runJob(real, "train-local", "one", args(one)));
  assert.equal(mastersOf(await runJob(real, "train-local", "uneven", args(uneven))), bits);
  const two = [...args(uneven), "--workers", "2"];
  assert.equal(mastersOf(await runJob(real, "train", "uneven-two", two)), bits);
});
