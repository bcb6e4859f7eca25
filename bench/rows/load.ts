import type { Experiment } from "#bench/frame/experiment";

/** From the start of a process to the end of its first step. */
export const load: Experiment = {
  name: "load",
  rows: [
    {
      name: "load",
      what: "loading a 500 MB checkpoint to the end of the first step, 2x512 tokens, bf16, against Trainer",
      unit: "s",
      bar: 0.8,
      direction: "at most",
    },
  ],
  ours: async (workspace) =>
    workspace.ours(
      "full-step",
      await workspace.model("gpt2"),
      "--shapes",
      "2x512",
      "--repeat",
      "1",
    ),
  peer: async (workspace) => workspace.peer("trainer_load", await workspace.model("gpt2")),
  tolerances: { "first-2x512": 1e-3 },
};
