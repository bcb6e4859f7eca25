import type { Experiment } from "#bench/frame/experiment";

/** A fine-tune as train-local does it. */
export const classifier: Experiment = {
  name: "classifier",
  rows: [
    {
      name: "classifier",
      what: "training a MiniLM classifier (6 layers of 384), 32 rows of 128 tokens, bf16, no dropout, against transformers Trainer",
      unit: "rows/s",
      bar: 1.3,
      direction: "at least",
    },
  ],
  ours: async (workspace) => workspace.ours("classifier", await workspace.model("minilm")),
  peer: async (workspace) => workspace.peer("classifier", await workspace.model("minilm")),
  tolerances: { first: 3e-3, last: 3e-3 },
};

const forward = (batchSize: number): Experiment["rows"][number] => ({
  name: `classify-${batchSize}`,
  what: `classifying texts of 128 tokens, MiniLM's shape, bf16, batch ${batchSize}, against transformers`,
  unit: "texts/s",
  bar: 1.3,
  direction: "at least",
});

export const classify: Experiment = {
  name: "classify",
  rows: [forward(1), forward(8)],
  ours: async (workspace) => workspace.ours("classify", await workspace.model("minilm")),
  peer: async (workspace) => workspace.peer("classify", await workspace.model("minilm")),
  tolerances: { "logit-0": 1e-4, "logit-1": 1e-4 },
};
