import type { Experiment } from "#bench/frame/experiment";
import type { Bars, RowPrecision } from "#bench/frame/precision";

/** Tokens of the greedy text in fp32 that must be equal. */
const numCheckedTokens = 12;

const bars: ReadonlyMap<number, Bars> = new Map([
  [1, { bf16: 1.3, fp32: 1.15 }],
  [8, { bf16: 1.3, fp32: 1.3 }],
]);

export const generate = (precision: RowPrecision): Experiment => ({
  name: "generate",
  rows: [...bars].map(([batchSize, bar]) => ({
    name: `generate-${batchSize}`,
    what: `greedy generation, GPT-2 124M, ${precision}, batch ${batchSize}, 32 + 64 tokens, against transformers generate`,
    unit: "tokens/s",
    bar: bar[precision],
    direction: "at least",
  })),
  ours: async (workspace) =>
    workspace.ours("generate", await workspace.model("gpt2-lively"), "--precision", precision),
  peer: async (workspace) =>
    workspace.peer("generate", await workspace.model("gpt2-lively"), "--precision", precision),
  tolerances: Object.fromEntries(
    Array.from({ length: numCheckedTokens }, (_, index) => [`token-${index}`, 0]),
  ),
});
