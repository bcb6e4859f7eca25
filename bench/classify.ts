/**
 * Texts a second of a classifier's forward pass, at batch 1 and 8.
 *
 * node dist/bench/classify.js MODEL_DIR [--precision bf16|fp32] [--length N] [--repeat N]
 *
 * Prints {"values": {"classify-1": texts/s, "classify-8": texts/s}, "check": {"logit-0": ..., ...}}: medians
 * after a warm-up, and the first text's logits in fp32. Texts are rows of the directory's tokens.i32.
 */
import { parseArgs } from "node:util";
import { openModel } from "#run/open-model";
import type { Precision } from "#lib/core/dtype";
import { TextClassifier } from "#lib/evaluation/classify/index";
import { setTextThreads } from "#lib/evaluation/side-by-side";
import { median } from "./frame/compare.js";
import { numThreads } from "./frame/environment.js";
import { readTokens } from "./frame/tokens.js";

const batchSizes = [1, 8];
const numWarmups = 5;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    precision: { type: "string", default: "bf16" },
    length: { type: "string", default: "128" },
    repeat: { type: "string", default: "50" },
  },
});
const directory = positionals[0] ?? "";
setTextThreads(numThreads());
const length = Number(options.length);
const tokens = readTokens(directory);
const texts = (count: number): Int32Array[] =>
  Array.from({ length: count }, (_, row) => tokens.subarray(row * length, (row + 1) * length));

const { model, readWeight, close } = await openModel(directory);
if (model.task !== "sequence-classification") throw new TypeError("a classifier is wanted");
const classifierModel = model;

async function withClassifier<T>(
  batchSize: number,
  precision: Precision,
  use: (classifier: TextClassifier) => T,
): Promise<T> {
  const classifier = await TextClassifier.create({
    model: classifierModel,
    ...{ readWeight, maxLength: length, batchSize, precision, packsWeights: true },
  });
  try {
    return use(classifier);
  } finally {
    classifier.close();
  }
}

const [logits] = await withClassifier(1, "fp32", (classifier) => classifier.logits(texts(1)));
const values: Record<string, number> = {};
for (const batchSize of batchSizes) {
  const batch = texts(batchSize);
  const precision = options.precision === "fp32" ? "fp32" : "bf16";
  const seconds = await withClassifier(batchSize, precision, (classifier) => {
    const times: number[] = [];
    for (let i = 0; i < numWarmups + Number(options.repeat); i++) {
      const start = performance.now();
      classifier.logits(batch);
      times.push((performance.now() - start) / 1000);
    }
    return median(times.slice(numWarmups));
  });
  values[`classify-${batchSize}`] = batchSize / seconds;
}
await close();
const check = Object.fromEntries([...(logits ?? [])].map((logit, i) => [`logit-${i}`, logit]));
console.log(JSON.stringify({ values, check }));
