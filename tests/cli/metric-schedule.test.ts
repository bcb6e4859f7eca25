import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { metricSchedule } from "#lib/optim/index";
import { createCaseJob } from "#tests/support/case-job";

// Rates that follow evaluations, on an engine that needs no TensorFlow.

const kwargs = { patience: 0, factor: 0.5, threshold: 0.01 };
const settings = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  ...{ workers: 2, per_device_train_batch_size: 1, learning_rate: 1e-2, max_steps: 8 },
  ...{ lr_scheduler_type: "reduce_lr_on_plateau", lr_scheduler_kwargs: kwargs },
  ...{ validation_split: 2, eval_strategy: "steps", eval_steps: 1, eval_on_start: true },
};

test("one process, a cluster and a resumed run follow the same evaluations", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const file = await job.writeJob(settings);
  const local = await job.lockstep(["train-local", file, "--output_dir", "local"]);
  assert.equal(local.code, 0, local.stderr);
  const digest = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
  const train = ["train", file, "--json-logs", "--save_strategy", "steps", "--save_steps", "3"];
  const cluster = await job.lockstep([...train, "--output_dir", "cluster"]);
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(cluster.of("run.completed")[0]?.mastersSha256, digest);
  const from = ["--resume_from_checkpoint", "cluster/checkpoint-3"];
  const resumed = await job.lockstep([...train, "--output_dir", "again", ...from]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(resumed.of("run.completed")[0]?.mastersSha256, digest);

  // Each step has the rate that the evaluations between the steps before it left; the first one does not count.
  const schedule = metricSchedule("reduce_lr_on_plateau", "loss", { learningRate: 1e-2, kwargs });
  const losses = new Map(cluster.of("evaluation.completed").map(({ step, loss }) => [step, loss]));
  let state = schedule.start;
  const rates = cluster.of("step.completed").map(({ step, learningRate }) => {
    const loss = losses.get(step - 1);
    if (step > 1) state = schedule.next(state, loss ?? Number.NaN);
    assert.equal(learningRate, state.learningRate, `step ${step}`);
    return learningRate;
  });
  assert.ok(new Set(rates).size > 2, rates.join());
  const logged = cluster.of("history.logged").flatMap(({ entry }) => entry["learning_rate"] ?? []);
  assert.deepEqual(logged, rates);

  const other = await job.lockstep([
    ...train,
    "--output_dir",
    "other",
    ...from,
    "--eval_steps",
    "2",
  ]);
  assert.match(other.stderr, /E_RESUME_MISMATCH.*eval_steps was 1 and is now 2/);
});

test("a schedule that has no evaluations to follow, or follows them the wrong way, is refused", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  for (const [changes, message] of [
    [
      { eval_strategy: "no" },
      /E_CONFIG_CONFLICT: .*lr_scheduler_type and eval_strategy.*there are none/,
    ],
    [{ validation_split: 0 }, /E_CONFIG_CONFLICT: .*no row is there for it/],
    [
      { lr_scheduler_kwargs: { mode: "max" } },
      /E_CONFIG_CONFLICT: .*less of loss is better: write mode: min/,
    ],
    [
      { lr_scheduler_kwargs: { num_cycles: 1 } },
      /E_CONFIG_INVALID: lr_scheduler_kwargs must be mode, /,
    ],
  ] as const) {
    const { code, stderr } = await job.lockstep([
      "train-local",
      await job.writeJob({ ...settings, ...changes }),
    ]);
    assert.equal(code, 1);
    assert.match(stderr, message);
  }
  const warm = await job.writeJob({
    ...{ ...settings, lr_scheduler_type: "greedy", lr_scheduler_kwargs: { min_lr: 0.02 } },
    ...{ max_steps: 1, warmup_steps: 3 },
  });
  const { code, stderr, lines } = await job.lockstep(["train-local", warm]);
  assert.equal(code, 0, stderr);
  const told = `${stderr}${lines.join("\n")}`;
  assert.match(told, /warmup_steps has no effect: greedy has no warm-up/);
  assert.match(told, /greedy never lowers learning_rate \(0.01\): min_lr of .* is 0.02/);
});
