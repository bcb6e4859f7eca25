/**
 * Where the time of a micro-batch goes: forward, backward and gradients out, by op and by matrix product.
 *
 * node dist/bench/profile.js MODEL_DIR --python PYTHON [--precision bf16|fp32] [--shape ROWSxTOKENS]
 *   [--threads N] [--repeat N] [--record]
 *
 * PYTHON has bench/peers/profile-requirements.txt: TensorFlow of the engine's version, which is the only one
 * that gives out the times of its nodes. MODEL_DIR needs no more than its config.json. `--record` also writes
 * bench/results/profile_<hardware>_<date>.md.
 */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { packageRoot } from "#lib/core/paths";
import type { GraphBuilder } from "#lib/graph/builder";
import { encodeSavedModel } from "#lib/graph/saved-model";
import { createModel } from "#lib/models/index";
import { buildTrainingPrograms } from "#lib/tuning/programs";
import { median } from "./frame/compare.js";
import { describeEnvironment, hardwareName, numThreads } from "./frame/environment.js";
import {
  isProduct,
  type NodeTimes,
  type TimedKind,
  timesByKind,
  timesByProduct,
} from "./frame/node-times.js";
import { peersEnvironment } from "./frame/peers-python.js";
import { markdownRow } from "./frame/report.js";
import { inputFields, nextTokenField } from "#lib/core/batch";

/** Kinds and products with less are added up in one line. */
const leastShare = 0.003;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string" },
    precision: { type: "string", default: "bf16" },
    shape: { type: "string", default: "2x512" },
    threads: { type: "string", default: String(numThreads()) },
    repeat: { type: "string", default: "5" },
    record: { type: "boolean", default: false },
  },
});
const [directory] = positionals;
const { python } = options;
if (directory === undefined || python === undefined) {
  process.stderr.write("profile takes a model directory and --python\n");
  process.exit(2);
}

function trainingGraph(modelDirectory: string): GraphBuilder {
  const text = readFileSync(join(modelDirectory, "config.json"), "utf8");
  const modelConfig = JSON.parse(text) as Record<string, unknown>;
  const model = createModel(modelConfig, { task: "causal-lm" });
  const precision = options.precision === "fp32" ? "fp32" : "bf16";
  const [numRows, length] = options.shape.split("x").map(Number) as [number, number];
  return buildTrainingPrograms(model, {
    jobId: "profile",
    modelConfig,
    layout: buildParameterLayout(model.weights, precision === "bf16" ? "bfloat16" : "float32"),
    precision,
    objective: { kind: "causal_lm" },
    batchFields: [...inputFields(), nextTokenField],
    sequenceLength: length,
    microBatchSize: numRows,
    evalBatchSize: numRows,
    generationLength: 0,
    threadsPerWorker: Number(options.threads),
    parameters: { kind: "full" },
  }).graph;
}

async function measured(graph: GraphBuilder, interpreter: string) {
  const folder = mkdtempSync(join(tmpdir(), "lockstep-profile-"));
  try {
    writeFileSync(join(folder, "saved_model.pb"), encodeSavedModel(graph));
    const script = join(packageRoot, "bench/peers/profile_graph.py");
    const { stdout } = await promisify(execFile)(
      interpreter,
      [script, folder, options.threads, options.repeat],
      { env: { ...process.env, ...peersEnvironment }, maxBuffer: 2 ** 26 },
    );
    return JSON.parse(stdout) as { readonly seconds: number[]; readonly nodes: NodeTimes };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const sumOf = (kinds: readonly TimedKind[]): number =>
  kinds.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
const gigaflops = ({ flops, milliseconds }: TimedKind): number => flops / milliseconds / 1e6;

function tableOf(kinds: readonly TimedKind[], total: number, what: string): string[] {
  const shown = kinds.filter(({ milliseconds }) => milliseconds >= leastShare * total);
  const rest = kinds.slice(shown.length);
  const numRest = rest.reduce((sum, { numNodes }) => sum + numNodes, 0);
  const line = (kind: TimedKind): string =>
    markdownRow([
      kind.kind,
      String(kind.numNodes),
      kind.milliseconds.toFixed(1),
      `${((100 * kind.milliseconds) / total).toFixed(1)} %`,
      kind.flops === 0 ? "" : gigaflops(kind).toFixed(0),
    ]);
  return [
    markdownRow([what, "nodes", "ms", "share", "GFLOP/s"]),
    "|---|--:|--:|--:|--:|",
    ...shown.map(line),
    line({ kind: "everything else", numNodes: numRest, milliseconds: sumOf(rest), flops: 0 }),
  ];
}

const graph = trainingGraph(directory);
const { seconds, nodes } = await measured(graph, python);
const kinds = timesByKind(graph, nodes);
const byProduct = timesByProduct(graph, nodes);
const total = sumOf(kinds);
const products = sumOf(kinds.filter(isProduct));
const best = Math.max(...byProduct.filter(({ flops }) => flops > 1e10).map(gigaflops));
const flops = byProduct.reduce((sum, kind) => sum + kind.flops, 0);
const date = new Date().toISOString().slice(0, 10);
const { model_type: modelType } = JSON.parse(
  readFileSync(join(directory, "config.json"), "utf8"),
) as Record<string, unknown>;
const page = [
  `# Profile of a micro-batch, ${date}`,
  "",
  `${String(modelType)}, ${options.shape} tokens, ${options.precision}: forward, backward and gradients out.`,
  "Times of nodes are TensorFlow's step statistics of the engine's graph, medians of",
  `${options.repeat} runs; a run without statistics takes ${(1000 * median(seconds)).toFixed(0)} ms (median) and`,
  `${(1000 * Math.min(...seconds)).toFixed(0)} ms (least).`,
  "",
  "    node dist/bench/profile.js MODEL_DIR --python PYTHON --record",
  "",
  ...describeEnvironment().map((line) => `- ${line}`),
  "",
  `Nodes take ${total.toFixed(0)} ms: matrix products ${products.toFixed(0)} ms, everything else`,
  `${(total - products).toFixed(0)} ms. All ${(flops / 1e9).toFixed(0)} GFLOP of products at the rate of the`,
  `fastest of them, ${best.toFixed(0)} GFLOP/s, would take ${(flops / best / 1e6).toFixed(0)} ms.`,
  "",
  "## By kind of node",
  "",
  ...tableOf(kinds, total, "kind"),
  "",
  "## Matrix products",
  "",
  ...tableOf(byProduct, total, "product"),
  "",
].join("\n");
console.log(page);
if (options.record) {
  const folder = join(packageRoot, "bench/results");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `profile_${hardwareName()}_${date}.md`), page);
}
