/**
 * Trains a group of a small model in this process and prints, as JSON, what was planned and what the
 * process took at most: node memory-point.js kept|checkpointing|lora|qlora bf16|fp32
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
import { frozenFormOf } from "#lib/parameters/quantization";
import createEngine from "#lib/tuning/engine";
import { loadFrozen, loraFixtureDirectory } from "./lora-fixtures.js";
import { causalJob } from "./batches.js";

const [mode, precision] = process.argv.slice(2) as [string, Precision];
const vocab = 4096;
/** Wide rows and few weights, so that activations are most of what it takes; of 4-bit weights the other way round. */
const [numRows, numTokens, width, numLayers] =
  mode === "qlora" ? ([1, 32, 1024, 12] as const) : ([4, 1024, 256, 6] as const);
const modelConfig = {
  model_type: "gpt2",
  ...{ vocab_size: vocab, n_positions: numTokens, n_embd: width, n_layer: numLayers, n_head: 4 },
};
const model = createModel(modelConfig, { task: "causal-lm" });
const wireDtype = precision === "bf16" ? "bfloat16" : "float32";
const adapter = mode.endsWith("lora") ? await adapterOf() : undefined;
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
const startBytes = process.memoryUsage.rss();
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
const elements = model.weights.map(({ shape }) => shape.reduce((product, dim) => product * dim, 1));
const wideBytes = 4 * elements.reduce((sum, size) => sum + size, 0);
console.log(JSON.stringify({ plannedBytes, peakBytes, startBytes, wideBytes }));

/** Which modules a fixture adapts, for this model. */
async function adapterOf() {
  const directory = await AdapterDirectory.open(loraFixtureDirectory("gpt2"));
  await directory.close();
  const weights = model.weights.map(({ name, shape }) => ({ name, shape }));
  const base = { facts: adapterFacts({ model_type: "gpt2" }), weights };
  const settings = {
    ...{ load_in_4bit: mode === "qlora", bnb_4bit_use_double_quant: true },
    ...({ bnb_4bit_quant_type: "nf4", bnb_4bit_compute_dtype: null } as const),
  };
  const frozenDtype = frozenFormOf(settings, base, wireDtype);
  return layOutAdapter(directory.config, base, { wireDtype: "float32", frozenDtype });
}
