/**
 * Rows a second of a classifier's training as `lockstep train-local` does it: batches out of labelled texts,
 * forward, backward, gradients out, norm, clip, AdamW, parameters in.
 *
 * node dist/bench/classifier.js MODEL_DIR [--precision bf16|fp32] [--rows N] [--steps N] [--threads N]
 *
 * Prints {"values": {"classifier": rows a second}, "check": {"first": loss, "last": loss}}: over the steps
 * after the first five; the mean losses of the first and the last five. The texts are the directory's
 * rows.jsonl in their order, padded to the longest.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { numThreads } from "#bench/frame/environment";
import { prepareRun } from "#run/prepare";
import { type LocalStep, trainLocal } from "#run/train-local";
import { loadConfig } from "#lib/config/index";

const numWarmupSteps = 5;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    precision: { type: "string", default: "bf16" },
    rows: { type: "string", default: "32" },
    steps: { type: "string", default: "20" },
    threads: { type: "string", default: String(numThreads()) },
  },
});
const [directory = ""] = positionals;
process.env["TF_NUM_INTRAOP_THREADS"] = options.threads;
process.env["TF_NUM_INTEROP_THREADS"] = "1";

const outputDirectory = mkdtempSync(join(tmpdir(), "lockstep-bench-classifier-"));
const settings = {
  model_name_or_path: directory,
  dataset: join(directory, "rows.jsonl"),
  validation_split: 0,
  max_length: 128,
  train_sampling_strategy: "sequential",
  workers: 1,
  threads_per_worker: options.threads,
  per_device_train_batch_size: options.rows,
  bf16: options.precision !== "fp32",
  learning_rate: 1e-4,
  // As the model that the other side trains.
  dropout: 0,
  lr_scheduler_type: "constant",
  max_steps: options.steps,
  use_cpu: true,
  output_dir: outputDirectory,
};
try {
  const { config } = await loadConfig(
    Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]),
  );
  const run = await prepareRun(config);
  const { default: createEngine } = await import("#lib/tuning/engine");
  const engine = await createEngine({ ...run.job, jobId: "bench" });
  const { steps } = await trainLocal(run, engine);
  engine.close();
  await run.close();

  const measured = steps.slice(numWarmupSteps);
  const seconds = measured.reduce((sum, step) => sum + step.seconds, 0);
  const loss = (of: readonly LocalStep[]): number =>
    of.reduce((sum, step) => sum + step.loss, 0) / of.length;
  const values = { classifier: (measured.length * Number(options.rows)) / seconds };
  const check = {
    first: loss(steps.slice(0, numWarmupSteps)),
    last: loss(steps.slice(-numWarmupSteps)),
  };
  console.log(JSON.stringify({ values, check }));
} finally {
  rmSync(outputDirectory, { recursive: true, force: true });
}
