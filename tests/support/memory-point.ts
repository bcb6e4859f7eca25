/**
 * Trains a group of a small model in this process and prints, as JSON, what was planned and what the
 * process took at most: node memory-point.js kept|checkpointing|lora bf16|fp32
 */
import { AdapterDirectory } from "#lib/checkpoint/peft/index";
import { peakResidentBytes } from "#bench/frame/peak-memory";
import type { WorkerJob } from "#lib/core/job";
import type { Precision } from "#lib/core/dtype";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { sharedWireSpace } from "#lib/core/wire-space";
import { adapterFacts } from "#lib/models/facts";
import { createModel } from "#lib/models/index";
import { layOutAdapter } from "#lib/parameters/lora-layout";
import createEngine from "#lib/tuning/engine";
import { loadFrozen, loraFixtureDirectory } from "./lora-fixtures.js";
import { causalJob } from "./batches.js";

/** Wide rows and few weights: the activations are most of what it takes. */
const [numRows, numTokens, vocab] = [4, 1024, 4096];
const [mode, precision] = process.argv.slice(2) as [string, Precision];
const modelConfig = {
  model_type: "gpt2",
  ...{ vocab_size: vocab, n_positions: numTokens, n_embd: 256, n_layer: 6, n_head: 4 },
};
const model = createModel(modelConfig, { task: "causal-lm" });
const wireDtype = precision === "bf16" ? "bfloat16" : "float32";
const adapter = mode === "lora" ? await adapterOf() : undefined;
const job: WorkerJob = {
  jobId: "test",
  modelConfig,
  layout: adapter?.trained ?? buildParameterLayout(model.weights, wireDtype),
  ...(adapter === undefined ? {} : { frozen: adapter.frozen }),
  parameters: adapter?.job ?? { kind: "full" },
  precision,
  ...causalJob(),
  sequenceLength: numTokens,
  gradientCheckpointing: mode === "checkpointing",
  ...{ microBatchSize: numRows, evalBatchSize: 1, generationLength: 0, threadsPerWorker: 1 },
};
const engine = await createEngine(job);
const parameters = sharedWireSpace(job.layout);
const gradients = sharedWireSpace(job.layout);
if (adapter !== undefined) {
  const { frozen } = adapter;
  await loadFrozen(engine, frozen, sharedWireSpace(frozen));
}
engine.loadParameters(parameters);
const tokens = Int32Array.from({ length: numRows * numTokens }, (_, i) => (i * 7919) % vocab);
const targets = tokens.map((id) => (id + 1) % vocab);
const batch = { numRows, fields: { tokens, targets } };
engine.accumulate(batch, 1, true);
engine.accumulate(batch, 1, false, gradients);
const peakBytes = peakResidentBytes();
const plannedBytes = (engine.plannedBytes ?? 0) + 2 * parameters.length;
engine.close();
console.log(JSON.stringify({ plannedBytes, peakBytes }));

/** Which modules a fixture adapts, for this model. */
async function adapterOf() {
  const directory = await AdapterDirectory.open(loraFixtureDirectory("gpt2"));
  await directory.close();
  const weights = model.weights.map(({ name, shape }) => ({ name, shape }));
  const dtypes = { wireDtype: "float32", frozenDtype: wireDtype } as const;
  return layOutAdapter(
    directory.config,
    { facts: adapterFacts({ model_type: "gpt2" }), weights },
    dtypes,
  );
}
