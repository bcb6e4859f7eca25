import type { Experiment } from "#bench/frame/experiment";

/** What two workers on one machine wait for between the last gradient and the next parameters. */
export const synchronisation: Experiment = {
  name: "synchronisation",
  rows: [
    {
      name: "reduce-update-broadcast",
      what: "reduce, norm, clip, AdamW and broadcast to two workers, 124M parameters on loopback",
      unit: "s",
      bar: 1.2,
      direction: "at most",
      withoutPeer: true,
    },
  ],
  ours: (workspace) => workspace.ours("sync"),
  tolerances: {},
};

/** The coordinator's arithmetic alone. */
export const reduction: Experiment = {
  name: "reduction",
  rows: [
    {
      name: "reduction",
      what: "sum of two workers' bf16 gradients, norm, clip, AdamW, 124M parameters",
      unit: "s",
      bar: 0.2,
      direction: "at most",
      withoutPeer: true,
    },
  ],
  ours: (workspace) => workspace.ours("reduce"),
  tolerances: {},
};
