/**
 * A run long enough for rounding to show: its training losses and its validation loss, beside those of
 * bench/peers/long_run.py on the same weights, batches and schedule.
 *
 * node dist/bench/long-run/run.js plan DIRECTORY [--key value ...]   the batches and the schedule
 * node dist/bench/long-run/run.js train OUT.json [--key value ...]   our run of them
 *
 * The keys are those of a configuration; bench/long-run/config.yaml is what they change.
 */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadConfig } from "#lib/config/index";
import { type Batch, integerField } from "#lib/core/batch";
import { packageRoot } from "#lib/core/paths";
import { prepareRun } from "#run/prepare";
import type { PreparedRun } from "#run/prepared-run";
import { evaluateLocal, trainLocal } from "#run/train-local";

/** tokens.i32 and targets.i32, all steps' rows one after another, and plan.json. */
function writePlan(run: PreparedRun, directory: string): void {
  const { plan, updates, job } = run;
  const { beta1, beta2, epsilon, weightDecay } = updates.optimizer.settings;
  mkdirSync(directory, { recursive: true });
  const write = (name: string, batches: readonly Batch[]): void => {
    for (const key of ["tokens", "targets"] as const) {
      const file = join(directory, `${name}-${key}.i32`);
      writeFileSync(file, "");
      for (const batch of batches) {
        const { buffer, byteOffset, byteLength } = integerField(batch, key);
        appendFileSync(file, new Uint8Array(buffer, byteOffset, byteLength));
      }
    }
  };
  const steps = Array.from({ length: plan.totalSteps }, (_, step) => step);
  write(
    "train",
    steps.flatMap((step) => plan.microBatches(step, 0)),
  );
  write("validation", run.data.validation);
  writeFileSync(
    join(directory, "plan.json"),
    JSON.stringify({
      model: run.model.directory,
      rows: job.microBatchSize,
      tokens: job.sequenceLength,
      learningRates: steps.map((step) => updates.learningRateAt(step)),
      betas: [beta1, beta2],
      epsilon,
      weightDecay,
      maxGradNorm: updates.maxGradNorm,
    }),
  );
}

async function train(run: PreparedRun, file: string): Promise<void> {
  process.env["TF_NUM_INTRAOP_THREADS"] ??= String(run.config.threads_per_worker);
  process.env["TF_NUM_INTEROP_THREADS"] ??= "1";
  const { default: createEngine } = await import("#lib/tuning/engine");
  const engine = await createEngine({ ...run.job, jobId: "long-run" });
  const outcome = await trainLocal(run, engine, {
    onStep: ({ step, loss, seconds }) => {
      process.stderr.write(`step ${step}  loss ${loss.toFixed(4)}  ${seconds.toFixed(2)} s\n`);
      return undefined;
    },
  });
  const losses = outcome.steps.map(({ loss }) => loss);
  const seconds = outcome.steps.map((step) => step.seconds);
  const { loss: validationLoss } = evaluateLocal(run, engine);
  writeFileSync(file, JSON.stringify({ losses, validationLoss, seconds }));
  engine.close();
}

const [what, target, ...keys] = process.argv.slice(2);
if ((what !== "plan" && what !== "train") || target === undefined) {
  process.stderr.write("usage: run.js plan DIRECTORY | train OUT.json [--key value ...]\n");
  process.exit(2);
}
const { config } = await loadConfig([join(packageRoot, "bench/long-run/config.yaml"), ...keys]);
const run = await prepareRun(config);
if (what === "plan") writePlan(run, target);
else await train(run, target);
await run.close();
