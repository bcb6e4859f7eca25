/**
 * Trains two groups of a small model in this process and prints, as JSON, what was planned and what the
 * process took at most: node memory-point.js [checkpointing]
 */
import { peakResidentBytes } from "#bench/frame/peak-memory";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { sharedWireSpace } from "#lib/core/wire-space";
import { createModel } from "#lib/models/index";
import createEngine from "#lib/tuning/engine";

/** Wide rows and few weights: the activations are most of what it takes. */
const [numRows, numTokens, vocab] = [8, 1024, 4096];
const modelConfig = {
  model_type: "gpt2",
  ...{ vocab_size: vocab, n_positions: numTokens, n_embd: 256, n_layer: 6, n_head: 4 },
};
const model = createModel(modelConfig, { task: "causal-lm" });
const job: WorkerJob = {
  jobId: "test",
  modelConfig,
  layout: buildParameterLayout(model.weights, "bfloat16"),
  precision: "bf16",
  sequenceLength: numTokens,
  gradientCheckpointing: process.argv[2] === "checkpointing",
  ...{ microBatchSize: numRows, evalBatchSize: 1, generationLength: 0, threadsPerWorker: 1 },
};
const engine = await createEngine(job);
const parameters = sharedWireSpace(job.layout);
const gradients = sharedWireSpace(job.layout);
engine.loadParameters(parameters);
const tokens = Int32Array.from({ length: numRows * numTokens }, (_, i) => (i * 7919) % vocab);
const batch = { numRows, tokens, targets: tokens.map((id) => (id + 1) % vocab) };
for (let group = 0; group < 2; group++) {
  engine.accumulate(batch, 1, true);
  engine.accumulate(batch, 1, false, gradients);
}
const peakBytes = peakResidentBytes();
const plannedBytes = (engine.plannedBytes ?? 0) + 2 * parameters.length;
engine.close();
console.log(JSON.stringify({ plannedBytes, peakBytes }));
