import type { Experiment } from "#bench/frame/experiment";
import type { Bars, RowPrecision } from "#bench/frame/precision";

/** A fine-tune as train-local does it. */
export const classifier = (precision: RowPrecision): Experiment => ({
  name: "classifier",
  rows: [
    {
      name: "classifier",
      what: `training a MiniLM classifier (6 layers of 384), 32 rows of 128 tokens, ${precision}, no dropout, against transformers Trainer`,
      unit: "rows/s",
      bar: 1.3,
      direction: "at least",
    },
  ],
  ours: async (workspace) =>
    workspace.ours("classifier", await workspace.model("minilm"), "--precision", precision),
  peer: async (workspace) =>
    workspace.peer("classifier", await workspace.model("minilm"), "--precision", precision),
  tolerances: { first: 3e-3, last: 3e-3 },
});

const bars: ReadonlyMap<number, Bars> = new Map([
  [1, { bf16: 1.3, fp32: 1 }],
  [8, { bf16: 1.3, fp32: 1.1 }],
]);

export const classify = (precision: RowPrecision): Experiment => ({
  name: "classify",
  rows: [...bars].map(([batchSize, bar]) => ({
    name: `classify-${batchSize}`,
    what: `classifying texts of 128 tokens, MiniLM's shape, ${precision}, batch ${batchSize}, against transformers`,
    unit: "texts/s",
    bar: bar[precision],
    direction: "at least",
  })),
  ours: async (workspace) =>
    workspace.ours("classify", await workspace.model("minilm"), "--precision", precision),
  peer: async (workspace) =>
    workspace.peer("classify", await workspace.model("minilm"), "--precision", precision),
  tolerances: { "logit-0": 1e-4, "logit-1": 1e-4 },
});
