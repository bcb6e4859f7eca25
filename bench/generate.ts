/**
 * New tokens a second of greedy generation, prompt included in the time: bench/peers/generate.py measures
 * the same in transformers.
 *
 * node dist/bench/generate.js MODEL_DIR [--precision bf16|fp32] [--prompt N] [--new N] [--repeat N]
 */
import { parseArgs } from "node:util";
import { openModel } from "#run/open-model";
import { createModel } from "#lib/models/index";
import { readModelConfig } from "#run/model-directory";
import { Generator, generationDefaults } from "#lib/evaluation/generate/index";
import { median } from "./frame/compare.js";
import { readTokens } from "./frame/tokens.js";

const batchSizes = [1, 8];
const numCheckedTokens = 12;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    precision: { type: "string", default: "bf16" },
    prompt: { type: "string", default: "32" },
    new: { type: "string", default: "64" },
    repeat: { type: "string", default: "5" },
  },
});
const directory = positionals[0] ?? "";
const promptLength = Number(options.prompt);
const numNew = Number(options.new);
const tokens = readTokens(directory);
const prompts = (numRows: number): Int32Array[] =>
  Array.from({ length: numRows }, (_, row) =>
    tokens.subarray(row * promptLength, (row + 1) * promptLength),
  );

const { readWeight, close } = await openModel(directory);
const created = createModel(await readModelConfig(directory), { task: "causal-lm" });
if (created.task !== "causal-lm") throw new TypeError("a causal language model is wanted");
const model = created;

/** Loads a generator for as many rows, and gives it to `use`. */
async function withGenerator<T>(
  batchSize: number,
  precision: "bf16" | "fp32",
  use: (generate: (numTokens: number) => Promise<number[][]>) => Promise<T>,
): Promise<T> {
  const maxLength = promptLength + numNew;
  const generator = await Generator.create({ model, readWeight, batchSize, maxLength, precision });
  try {
    return await use(async (numTokens) => {
      const made = await generator.generate(prompts(batchSize), {
        ...generationDefaults,
        maxNewTokens: numTokens,
      });
      return made.map((row) => [...row.tokens]);
    });
  } finally {
    generator.close();
  }
}

const greedy = await withGenerator(1, "fp32", async (generate) => generate(numCheckedTokens));
const values: Record<string, number> = {};
for (const batchSize of batchSizes) {
  const precision = options.precision === "fp32" ? "fp32" : "bf16";
  const seconds = await withGenerator(batchSize, precision, async (generate) => {
    const times: number[] = [];
    for (let i = 0; i <= Number(options.repeat); i++) {
      const start = performance.now();
      await generate(numNew);
      times.push((performance.now() - start) / 1000);
    }
    return median(times.slice(1));
  });
  values[`generate-${batchSize}`] = (batchSize * numNew) / seconds;
}
await close();
const check = Object.fromEntries((greedy[0] ?? []).map((token, i) => [`token-${i}`, token]));
console.log(JSON.stringify({ values, check }));
