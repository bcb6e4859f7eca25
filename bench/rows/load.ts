import type { Experiment } from "#bench/frame/experiment";
import type { RowPrecision } from "#bench/frame/precision";

/** From the start of a process to the end of its first step. */
export const load = (precision: RowPrecision): Experiment => ({
  name: "load",
  rows: [
    {
      name: "load",
      what: `loading a 500 MB checkpoint to the end of the first step, 2x512 tokens, ${precision}, against Trainer`,
      unit: "s",
      bar: 0.8,
      direction: "at most",
    },
  ],
  ours: async (workspace) =>
    workspace.ours(
      ...(["full-step", await workspace.model("gpt2"), "--precision", precision] as const),
      ...["--shapes", "2x512", "--repeat", "1"],
    ),
  peer: async (workspace) =>
    workspace.peer("trainer_load", await workspace.model("gpt2"), "--precision", precision),
  tolerances: { "first-2x512": 1e-3 },
});
