/**
 * Time of an engine's part of a step: a group of micro-batches until its gradient is out, and the
 * next parameters in.
 *
 * node dist/bench/step.js [--model smollm2|gpt2] [--precision bf16|fp32] [--threads N] [--rows N]
 *   [--tokens N] [--accumulation N] [--repeat N]
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { sharedWireSpace } from "#lib/core/wire-space";
import { createModel } from "#lib/models/index";
import { wireViewOf, wordsOf } from "#lib/tuning/wire-form";
import { median } from "./frame/compare.js";

/** Shapes of SmolLM2-135M and GPT-2 124M; the weights are random, which does not change the time. */
const models: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  gpt2: { model_type: "gpt2", vocab_size: 50257 },
  smollm2: {
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    vocab_size: 49152,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100000,
    tie_word_embeddings: true,
  },
};

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "smollm2" },
    precision: { type: "string", default: "bf16" },
    threads: { type: "string", default: String(cpus().length) },
    rows: { type: "string", default: "2" },
    tokens: { type: "string", default: "512" },
    accumulation: { type: "string", default: "1" },
    repeat: { type: "string", default: "5" },
  },
});
process.env["TF_NUM_INTRAOP_THREADS"] = values.threads;
process.env["TF_NUM_INTEROP_THREADS"] = "1";

const precision = values.precision === "fp32" ? "fp32" : "bf16";
const modelConfig = models[values.model];
if (modelConfig === undefined) {
  process.stderr.write(`--model is one of ${Object.keys(models).join(", ")}\n`);
  process.exit(2);
}
const model = createModel(modelConfig, { task: "causal-lm" });
const layout = buildParameterLayout(model.weights, precision === "bf16" ? "bfloat16" : "float32");
const job: WorkerJob = {
  jobId: "bench",
  modelConfig,
  layout,
  precision,
  sequenceLength: Number(values.tokens),
  microBatchSize: Number(values.rows),
  evalBatchSize: Number(values.rows),
  generationLength: 64,
  threadsPerWorker: Number(values.threads),
};

function randomParameters(): Uint8Array {
  const wireBytes = sharedWireSpace(layout);
  for (const slot of layout.tensors) {
    const view = wireViewOf(layout, slot);
    const words = wordsOf(view, wireBytes);
    if (slot.shape.length < 2) words.fill(view.words === "float32" ? 1 : 0x3f803f80);
    else if (view.words === "float32") words.forEach((_, i) => (words[i] = Math.sin(i) * 0.03));
    // Pairs of small bfloat16 numbers of either sign.
    else words.forEach((_, i) => (words[i] = 0x3c003c00 | ((i * 2654435761) & 0x80ff80ff)));
  }
  return wireBytes;
}

const seconds = (start: number): number => (performance.now() - start) / 1000;

const compileStart = performance.now();
const { default: createEngine } = await import("#lib/tuning/engine");
const engine = await createEngine(job);
console.log(`compiled in ${seconds(compileStart).toFixed(2)} s`);
const parameters = randomParameters();
const loadStart = performance.now();
engine.loadParameters(parameters);
console.log(`parameters loaded in ${seconds(loadStart).toFixed(2)} s`);
const numTokens = job.microBatchSize * job.sequenceLength;
const batch = {
  numRows: job.microBatchSize,
  tokens: Int32Array.from({ length: numTokens }, (_, i) => (i * 7919) % 49152),
  targets: Int32Array.from({ length: numTokens }, (_, i) => ((i + 1) * 7919) % 49152),
};
const gradients = sharedWireSpace(layout);
const groupSize = Number(values.accumulation);
const steps: number[] = [];
const loads: number[] = [];
for (let step = 0; step <= Number(values.repeat); step++) {
  const start = performance.now();
  let nllSum = 0;
  for (let i = 0; i < groupSize; i++) {
    const out = i === groupSize - 1 ? gradients : undefined;
    nllSum += engine.accumulate(batch, 1 / (numTokens * groupSize), i === 0, out).nllSum;
  }
  const computed = performance.now();
  engine.loadParameters(parameters);
  steps.push((computed - start) / 1000);
  loads.push(seconds(computed));
  const loss = nllSum / numTokens / groupSize;
  console.log(`step ${step}: ${(steps[step] as number).toFixed(3)} s, loss ${loss.toFixed(4)}`);
}
const { maxRSS } = process.resourceUsage();
console.log(
  JSON.stringify({
    model: values.model,
    precision,
    threads: job.threadsPerWorker,
    rows: job.microBatchSize,
    tokens: job.sequenceLength,
    accumulation: groupSize,
    firstStepSeconds: Number((steps[0] as number).toFixed(3)),
    microBatchSeconds: Number((median(steps.slice(1)) / groupSize).toFixed(3)),
    loadParametersSeconds: Number(median(loads.slice(1)).toFixed(3)),
    peakMemoryGiB: Number((maxRSS / 1024 ** 2).toFixed(2)),
  }),
);
engine.close();
