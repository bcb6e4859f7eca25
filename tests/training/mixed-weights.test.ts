import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createPairJob } from "#tests/support/pair-job";
import { createTaskJob } from "#tests/support/task-job";

// Weights, a z-loss and noise where batches are of several kinds: the same bits whoever computes.

test("a task whose rows have weights beside one whose rows have none, with noise, a z-loss and replay", async (t) => {
  const job = await createTaskJob(({ texts, answers, general }) => ({
    dataset: [
      { path: texts, task: "speech" },
      { path: answers, task: "answers", columns: { weight: "w" } },
    ],
    tasks: { answers: { max_length: 40, z_loss_weight: 0.01 } },
    ...{ general_dataset: general, replay_weight: 0.5, neftune_noise_alpha: 5 },
  }));
  t.after(job.remove);
  const file = join(job.directory, "answers.jsonl");
  const rows = (await readFile(file, "utf8")).trim().split("\n");
  const weighted = rows.map((row, i) => row.replace(/}$/, `,"w":${[0.1, 0, 3][i % 3]}}`));
  await writeFile(file, `${weighted.join("\n")}\n`);
  const local = await runJob(job, "train-local", "local", []);
  const expected = mastersOf(local);
  const said = local.lines.join("\n");
  assert.match(said, /answers losses are weighted means/);
  assert.ok(!said.includes("speech losses are weighted"));
  const two = await runJob(job, "train", "two", ["--workers", "2"]);
  assert.equal(mastersOf(two), expected);
});

test("pairs of answers with noise: it is in the policy's pass and not in the reference's", async (t) => {
  const job = await createPairJob({
    ...{ max_steps: 3, global_batch_size: 8, gradient_groups: 2, neftune_noise_alpha: 5 },
  });
  t.after(job.remove);
  const local = mastersOf(await runJob(job, "train-local", "local", []));
  const two = await runJob(job, "train", "two", ["--workers", "2"]);
  assert.equal(mastersOf(two), local);
  // Before the first update an evaluation cannot tell the two apart; training can, by the noise.
  const loss = two.of("evaluation.completed")[0]?.loss ?? Number.NaN;
  assert.ok(Math.abs(loss - Math.LN2) < 1e-6, `${loss}`);
  const [first] = two.of("step.completed");
  assert.ok(Math.abs((first?.loss ?? Math.LN2) - Math.LN2) > 1e-5, `${first?.loss}`);
});
