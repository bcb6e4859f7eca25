import type { Experiment } from "#bench/frame/experiment";

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
