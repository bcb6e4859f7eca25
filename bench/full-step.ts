/**
 * Seconds of a whole optimizer step in one process: forward, backward, gradients out, norm, clip, AdamW,
 * parameters in. The masters are float32; with bf16 products and the wire are bfloat16.
 *
 * node dist/bench/full-step.js MODEL_DIR [--precision bf16|fp32] [--shapes ROWSxTOKENS,...] [--repeat N]
 *   [--threads N] [--xla] [--adapter DIR] [--dropout RATE]
 *
 * Prints {"values": {"step-2x512": seconds, "micro-batch-2x512": seconds}, "check": {"first-2x512": loss,
 * "last-2x512": loss}}: medians of `--repeat` steps after a warm-up step, and of what of them passes until
 * the gradients are out; the losses of the first and the last step. Every shape starts from the directory's
 * weights and takes the first tokens of its tokens.i32. With --adapter, a LoRA adapter of peft is trained
 * instead of the weights. With --dropout, values of embeddings, attention and residual are dropped. "load" is the time from the start of the process to the end of its first step.
 */
import { parseArgs } from "node:util";
import type { WorkerJob } from "#lib/core/job";
import { shardRanges } from "#lib/core/parameter-layout";
import { passPieces, readWireRange, sharedWireSpace } from "#lib/core/wire-space";
import { clipCoefficient, ShardArithmetic, totalNorm } from "#lib/optim/index";
import { median } from "./frame/compare.js";
import { numThreads } from "./frame/environment.js";
import { openSeededAdapter } from "./frame/seeded-adapter.js";
import { openSeededModel } from "./frame/seeded-model.js";
import { inputFields, nextTokenField } from "#lib/core/batch";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    precision: { type: "string", default: "bf16" },
    shapes: { type: "string", default: "2x512" },
    repeat: { type: "string", default: "3" },
    adapter: { type: "string" },
    threads: { type: "string", default: String(numThreads()) },
    xla: { type: "boolean", default: false },
    dropout: { type: "string", default: "0" },
  },
});
const directory = positionals[0];
if (directory === undefined) {
  process.stderr.write("full-step takes a model directory\n");
  process.exit(2);
}
process.env["TF_NUM_INTRAOP_THREADS"] = options.threads;
process.env["TF_NUM_INTEROP_THREADS"] = "1";

const precision = options.precision === "fp32" ? "fp32" : "bf16";
const base = openSeededModel(directory, precision);
const adapter =
  options.adapter === undefined
    ? undefined
    : await openSeededAdapter(base, options.adapter, precision);
const { layout, loadMasters } = adapter ?? base;

const rate = Number(options.dropout);
const dropout = { seed: 0, rates: { embeddings: rate, attention: rate, residual: rate } };

const adamW = {
  name: "adamw",
  settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 },
};

async function loadShard(): Promise<ShardArithmetic> {
  const [range] = shardRanges(layout, 1);
  if (range === undefined) throw new Error("the model has no parameters");
  const shard = await ShardArithmetic.create(layout, range, adamW, { withThread: true });
  await loadMasters(range, shard.masters);
  return shard;
}

const values: Record<string, number> = {};

async function measureShape(numRows: number, length: number) {
  const job: WorkerJob = {
    jobId: "bench",
    modelConfig: base.modelConfig,
    layout,
    precision,
    objective: { kind: "causal_lm" },
    batchFields: [...inputFields(), nextTokenField],
    sequenceLength: length,
    microBatchSize: numRows,
    evalBatchSize: numRows,
    generationLength: 0,
    threadsPerWorker: Number(options.threads),
    xla: options.xla,
    ...(rate > 0 ? { dropout } : {}),
    ...(adapter === undefined ? {} : { frozen: adapter.frozen }),
    parameters: adapter?.job ?? { kind: "full" },
  };
  const { default: createEngine } = await import("#lib/tuning/engine");
  const engine = await createEngine(job);
  const shard = await loadShard();
  const gradients = sharedWireSpace(layout);
  const batch = base.batch(numRows, length);
  if (adapter !== undefined) {
    const { frozen, loadFrozen } = adapter;
    await passPieces(
      frozen,
      async (range, into) => readWireRange(frozen, range, loadFrozen, into),
      (piece, wireBytes) => engine.loadFrozen?.(piece, wireBytes),
    );
  }
  engine.loadParameters(shard.publish());
  const seconds: number[] = [];
  const microBatchSeconds: number[] = [];
  const losses: number[] = [];
  for (let step = 0; step <= Number(options.repeat); step++) {
    const startedAt = performance.now();
    const gradScale = 1 / (numRows * (length - 1));
    const microBatch = { ...batch, coordinates: { step, group: 0, index: 0 } };
    const { weight, lossSum } = engine.accumulate(microBatch, gradScale, true, gradients);
    microBatchSeconds.push((performance.now() - startedAt) / 1000);
    const norm = totalNorm(shard.addLastGroup(gradients, true));
    shard.apply({
      learningRate: 1e-4,
      updateNumber: step + 1,
      gradientScale: clipCoefficient(norm, 1),
    });
    engine.loadParameters(shard.publish());
    const endedAt = performance.now();
    // The clock starts with the process.
    values["load"] ??= endedAt / 1000;
    seconds.push((endedAt - startedAt) / 1000);
    losses.push(lossSum / weight);
  }
  engine.close();
  await shard.close();
  return {
    stepSeconds: median(seconds.slice(1)),
    microBatchSeconds: median(microBatchSeconds.slice(1)),
    losses,
  };
}

const check: Record<string, number> = {};
for (const shape of options.shapes.split(",")) {
  const [numRows, length] = shape.split("x").map(Number) as [number, number];
  const { stepSeconds, microBatchSeconds, losses } = await measureShape(numRows, length);
  values[`step-${shape}`] = stepSeconds;
  values[`micro-batch-${shape}`] = microBatchSeconds;
  check[`first-${shape}`] = losses[0] as number;
  check[`last-${shape}`] = losses.at(-1) as number;
}
console.log(JSON.stringify({ values, check }));
