import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createTinyJob } from "#tests/support/tiny-job";

test("a run with EWC in bfloat16, computed for real: one process, and workers with shards in processes", async (t) => {
  const job = await createTinyJob({
    ...{ max_steps: 3, global_batch_size: 8, gradient_groups: 2, bf16: true },
    ...{ sample_prompt: null, eval_on_start: false, eval_strategy: "no" },
    ...{ ewc_samples: 12, ewc_lambda: 10, general_dataset: "4.txt" },
  });
  t.after(job.remove);
  const general = ["--general-dataset", join(job.directory, "4.txt")];
  const bits = mastersOf(await runJob(job, "train-local", "local", general));
  const spread = [...general, "--workers", "2", "--reducer-processes", "2"];
  assert.equal(mastersOf(await runJob(job, "train", "processes", spread)), bits);
});
