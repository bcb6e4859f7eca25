import type { Experiment } from "#bench/frame/experiment";

/** Tokens of the greedy text in fp32 that must be equal. */
const numCheckedTokens = 12;

const row = (batchSize: number): Experiment["rows"][number] => ({
  name: `generate-${batchSize}`,
  what: `greedy generation, GPT-2 124M, bf16, batch ${batchSize}, 32 + 64 tokens, against transformers generate`,
  unit: "tokens/s",
  bar: 1.3,
  direction: "at least",
});

export const generate: Experiment = {
  name: "generate",
  rows: [row(1), row(8)],
  ours: async (workspace) => workspace.ours("generate", await workspace.model("gpt2-lively")),
  peer: async (workspace) => workspace.peer("generate", await workspace.model("gpt2-lively")),
  tolerances: Object.fromEntries(
    Array.from({ length: numCheckedTokens }, (_, index) => [`token-${index}`, 0]),
  ),
};
