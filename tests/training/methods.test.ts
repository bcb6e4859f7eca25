import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createTinyClassifier } from "#tests/support/tiny-classifier";

// Each way to choose parameters in the whole command, with the real engine in real processes: whoever computes,
// and from wherever it goes on, a run ends with the same bits.

const steps = { max_steps: 4, global_batch_size: 8, gradient_groups: 2 };
const saving = ["--save-strategy", "steps", "--save-steps", "2", "--eval-strategy", "no"];

test("biases of BERT beside a new head: the same bits whoever computes, and nothing else moves", async (t) => {
  const settings = { ...steps, finetuning_type: "bitfit", learning_rate: 1e-2 };
  const job = await createTinyClassifier("bert", { settings });
  t.after(job.remove);
  const local = await runJob(job, "train-local", "local", []);
  const expected = mastersOf(local);
  assert.match(local.lines.join("\n"), /biases and the new head: [\d,]+ of [\d,]+ parameters/);
  assert.equal(
    mastersOf(await runJob(job, "train", "two", ["--workers", "2", ...saving])),
    expected,
  );
  const checkpoint = join(job.directory, "two", "checkpoint-2");
  const resuming = ["--workers", "1", ...saving, "--resume-from-checkpoint", checkpoint];
  assert.equal(mastersOf(await runJob(job, "train", "resumed", resuming)), expected);

  const [base, saved] = await Promise.all(
    ["model", "two"].map((name) => ModelWeights.open(join(job.directory, name))),
  );
  for (const name of base?.names() ?? []) {
    const before = await base?.readFloat32(name);
    // The hub's encoders have no prefix.
    const after = await saved?.readFloat32(`bert.${name}`);
    const stays = after?.every((value, i) => Object.is(value, before?.[i]));
    assert.equal(stays, !name.endsWith(".bias"), name);
  }
  await base?.close();
  await saved?.close();
});
