import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// The real engine in real processes, in one of which a bit of a weight flips.

let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    ...{ max_steps: 3, global_batch_size: 8, gradient_groups: 4 },
    ...{ sample_prompt: null, eval_on_start: false, eval_strategy: "no" },
    engine_module: fileURLToPath(new URL("../support/flipping-graph-engine.js", import.meta.url)),
  });
});
after(() => job.remove());

const lora = ["--use-peft", "--lora-r", "4", "--lora-target-modules", "all-linear"];
const methods = {
  "all weights in bfloat16": { args: ["--bf16"], space: "trained" },
  "all weights in float16": { args: ["--fp16"], space: "trained" },
  "all weights in float32": { args: ["--no-bf16"], space: "" },
  // They travel in float32 and are held in bfloat16.
  "adapters in bfloat16": { args: ["--bf16", ...lora], space: "frozen" },
  "adapters over 4-bit weights": {
    args: ["--bf16", ...lora, "--load-in-4bit", "--bnb-4bit-use-double-quant"],
    space: "",
  },
} as const;

for (const [name, { args, space }] of Object.entries(methods)) {
  test(`${name}: a flipped bit is found, and honest weights are not suspected`, async () => {
    const run = async (flipped: string, workers: string) => {
      process.env["LOCKSTEP_TEST_FLIP_SPACE"] = flipped;
      const how = ["--fingerprint-steps", "1", "--workers", workers];
      return runJob(job, "train", `${name}-${workers}`, [...args, ...how]);
    };
    const honest = await run("", "2");
    const expected = mastersOf(honest);
    assert.deepEqual(honest.of("worker.corrupted"), []);
    if (space === "") return;
    const faulty = await run(space, "1");
    assert.equal(mastersOf(faulty), expected);
    assert.deepEqual(
      faulty.of("worker.corrupted").map(({ workerId, spaces }) => ({ workerId, spaces })),
      [{ workerId: "worker-1", spaces: [space] }],
    );
  });
}
