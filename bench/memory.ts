/**
 * Peak memory and seconds of a micro-batch, with and without activation checkpointing.
 *
 * node dist/bench/memory.js                                   the table, a process a point
 * node dist/bench/memory.js MODEL TOKENS kept|recomputed      one point, as JSON
 *
 * Weights are random. The table of positions grows with the tokens, as GPT-2's ends at 1024. The peak is
 * VmHWM of the process: engine, parameters and gradients in wire form, as a worker holds them.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { sharedWireSpace } from "#lib/core/wire-space";
import { createModel } from "#lib/models/index";
import { wireViewOf, wordsOf } from "#lib/tuning/wire-form";
import { median } from "./frame/compare.js";
import { describeEnvironment, numThreads } from "./frame/environment.js";
import { peakResidentBytes } from "./frame/peak-memory.js";
import { markdownRow } from "./frame/report.js";
import { inputFields, nextTokenField } from "#lib/core/batch";

/** GPT-2 and GPT-2 medium. */
const shapes: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "124M": { n_layer: 12, n_embd: 768, n_head: 12 },
  "350M": { n_layer: 24, n_embd: 1024, n_head: 16 },
};
const tokenCounts = [1024, 4096];
const modes = ["kept", "recomputed"] as const;
const numSteps = 2;

interface Point {
  readonly plannedBytes: number;
  readonly peakBytes: number;
  readonly microBatchSeconds: number;
  readonly lossSum: number;
}

function randomParameters({ layout }: WorkerJob): Uint8Array {
  const wireBytes = sharedWireSpace(layout);
  for (const slot of layout.tensors) {
    const view = wireViewOf(layout, slot);
    const words = wordsOf(view, wireBytes);
    if (slot.shape.length < 2) words.fill(1);
    // Pairs of small bfloat16 numbers of either sign.
    else
      for (let i = 0; i < words.length; i++)
        words[i] = 0x3c003c00 | ((i * 0x9e3779b1) & 0x80ff80ff);
  }
  return wireBytes;
}

async function measurePoint(
  shape: string,
  numTokens: number,
  isRecomputed: boolean,
): Promise<Point> {
  process.env["TF_NUM_INTRAOP_THREADS"] = String(numThreads());
  process.env["TF_NUM_INTEROP_THREADS"] = "1";
  const modelConfig = {
    model_type: "gpt2",
    vocab_size: 50257,
    n_positions: Math.max(1024, numTokens),
    ...shapes[shape],
  };
  const model = createModel(modelConfig, { task: "causal-lm" });
  const job: WorkerJob = {
    jobId: "bench",
    modelConfig,
    layout: buildParameterLayout(model.weights, "bfloat16"),
    precision: "bf16",
    objective: { kind: "causal_lm" },
    batchFields: [...inputFields(), nextTokenField],
    sequenceLength: numTokens,
    gradientCheckpointing: isRecomputed,
    ...{ microBatchSize: 1, evalBatchSize: 1, generationLength: 0 },
    threadsPerWorker: numThreads(),
    parameters: { kind: "full" },
  };
  const { default: createEngine } = await import("#lib/tuning/engine");
  const engine = await createEngine(job);
  const parameters = randomParameters(job);
  const gradients = sharedWireSpace(job.layout);
  engine.loadParameters(parameters);
  const tokens = Int32Array.from({ length: numTokens }, (_, i) => (i * 7919) % 50257);
  const targets = tokens.map((id) => (id + 7919) % 50257);
  const batch = { numRows: 1, fields: { tokens, targets } };
  const seconds: number[] = [];
  let lossSum = 0;
  for (let step = 0; step < numSteps; step++) {
    const startedAt = performance.now();
    lossSum = engine.accumulate(batch, 1 / numTokens, true, gradients).lossSum;
    seconds.push((performance.now() - startedAt) / 1000);
  }
  engine.close();
  const plannedBytes = (engine.plannedBytes ?? 0) + 2 * parameters.length;
  return {
    plannedBytes,
    peakBytes: peakResidentBytes(),
    microBatchSeconds: median(seconds.slice(1)),
    lossSum,
  };
}

function pointInProcess(shape: string, numTokens: number, mode: string): Point {
  const args = [fileURLToPath(import.meta.url), shape, String(numTokens), mode];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${args.slice(1).join(" ")} ended with ${status}:\n${stderr}`);
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Point;
}

const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(2);

const [shape, tokens, mode] = process.argv.slice(2);
if (shape !== undefined) {
  console.log(JSON.stringify(await measurePoint(shape, Number(tokens), mode === "recomputed")));
} else {
  for (const line of describeEnvironment()) console.log(`- ${line}`);
  const head = [
    "model",
    "tokens",
    "activations",
    "planned, GB",
    "peak, GB",
    "seconds a micro-batch",
  ];
  console.log(`\n${markdownRow(head)}\n|${"---|".repeat(head.length)}`);
  for (const name of Object.keys(shapes)) {
    for (const numTokens of tokenCounts) {
      const losses = new Set<number>();
      for (const each of modes) {
        const point = pointInProcess(name, numTokens, each);
        losses.add(point.lossSum);
        if (losses.size > 1) throw new Error(`${name}, ${numTokens} tokens: the losses differ`);
        const figures = [
          gigabytes(point.plannedBytes),
          gigabytes(point.peakBytes),
          point.microBatchSeconds.toFixed(2),
        ];
        console.log(markdownRow([name, String(numTokens), each, ...figures]));
      }
    }
  }
}
