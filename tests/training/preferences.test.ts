import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { readTrainerState } from "#lib/checkpoint/index";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createPairJob } from "#tests/support/pair-job";
import { assertSameBits } from "#tests/support/same-bits";
import type { TinyJob } from "#tests/support/tiny-job";

// Pairs of answers, with the real engine in real processes: whoever computes, and from wherever it goes on, a run
// ends with the same bits.

const steps = {
  ...{ max_steps: 4, global_batch_size: 8, gradient_groups: 2, learning_rate: 1e-3 },
  // The checkpoint lies between two entries of the history.
  logging_steps: 3,
};
/** All ways to come to the end of a run end alike, and tell the same of the pairs. */
async function assertSamePairs(job: TinyJob): Promise<void> {
  const { one, two, resumed } = await assertSameBits(job, { saveSteps: 2 });
  const told = (outcome: typeof two) =>
    (["evaluation.completed", "step.completed"] as const).map(
      (type) => outcome.of(type).at(-1)?.metrics,
    );
  assert.deepEqual(told(resumed), told(two));
  assert.deepEqual(told(one), told(two));
  const [, ofLastStep] = told(two);
  const [whole, again, alone] = await Promise.all(
    ["two", "resumed", "local"].map((name) => history(join(job.directory, name))),
  );
  assert.deepEqual(again, whole);
  assert.ok(Object.keys(ofLastStep ?? {}).length > 4);
  // One process has an entry a step.
  assert.deepEqual(alone?.at(-1), { step: 4, ...ofLastStep });
}

/** What the training entries of a directory's history tell of the pairs. */
async function history(directory: string): Promise<readonly Record<string, unknown>[]> {
  const { log_history: entries } = await readTrainerState(directory);
  const general = ["epoch", "grad_norm", "learning_rate", "loss"];
  return entries
    .filter((entry) => "loss" in entry)
    .map((entry) =>
      Object.fromEntries(Object.entries(entry).filter(([key]) => !general.includes(key))),
    );
}

const lora = { use_peft: true, lora_r: 2, lora_target_modules: "all-linear" };
for (const [name, settings] of [
  ["DPO of all weights", { objective: "dpo" }],
  [
    "DPO of adapters",
    { objective: "dpo", loss_type: "ipo", ...lora, gradient_checkpointing: true },
  ],
  ["ORPO of answers", { objective: "orpo", orpo_nll_tokens: "answer" }],
  ["a reward model", { objective: "reward", center_rewards_coefficient: 0.01 }],
] as const) {
  test(`${name}: the same bits whoever computes`, async (t) => {
    const job = await createPairJob({ ...steps, ...settings });
    t.after(job.remove);
    await assertSamePairs(job);
  });
}

test("preferences beside answers that are learnt: one process and two workers end alike", async (t) => {
  const files = { pairs: "PAIRS", validation: "VALIDATION" };
  const job = await createPairJob({
    ...steps,
    dataset: [
      { path: files.pairs, task: "preference" },
      { path: files.pairs, task: "answers", columns: { prompt: "prompt", completion: "chosen" } },
    ],
    eval_dataset: [
      { path: files.validation, task: "preference" },
      {
        ...{ path: files.validation, task: "answers" },
        columns: { prompt: "prompt", completion: "chosen" },
      },
    ],
    tasks: {
      preference: { objective: "dpo", beta: 0.2 },
      answers: { dataset_format: "prompt-completion", weight: 0.5 },
    },
  });
  t.after(job.remove);
  const expected = mastersOf(await runJob(job, "train-local", "local"));
  const two = await runJob(job, "train", "two", ["--workers", "2"]);
  assert.equal(mastersOf(two), expected);
  const { metrics = {}, tasks = [] } = two.of("step.completed").at(-1) ?? {};
  assert.ok("preference_rewards/margins" in metrics);
  assert.deepEqual(
    tasks.map(({ name }) => name),
    ["preference", "answers"],
  );
});
