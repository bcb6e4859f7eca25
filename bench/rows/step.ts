import type { Experiment } from "#bench/frame/experiment";

const shapes = "2x512,1x1024";

/** Gradients out, norm, clip, AdamW and parameters in: what a step of a fine-tune takes. */
export const step: Experiment = {
  name: "step",
  rows: [
    {
      name: "step-2x512",
      what: "full fine-tune step, GPT-2 124M, 2x512 tokens, bf16, against torch bf16 autocast",
      unit: "s",
      bar: 0.72,
      direction: "at most",
    },
    {
      name: "step-1x1024",
      what: "the same with 1x1024 tokens",
      unit: "s",
      bar: 0.72,
      direction: "at most",
    },
  ],
  ours: async (workspace) =>
    workspace.ours("full-step", await workspace.model("gpt2"), ...options("bf16", shapes)),
  peer: async (workspace) =>
    workspace.peer("step", await workspace.model("gpt2"), ...options("bf16", shapes)),
  tolerances: {
    "first-2x512": 1e-3,
    "last-2x512": 3e-3,
    "first-1x1024": 1e-3,
    "last-1x1024": 3e-3,
  },
};

/** How far the step is from what its matrix products alone take. */
export const floor: Experiment = {
  name: "floor",
  rows: ["2x512", "1x1024"].map((shape) => ({
    name: `floor-${shape}`,
    value: `step-${shape}`,
    what: `full step of ${shape} tokens, bf16, against its matrix products alone in TensorFlow`,
    unit: "s",
    bar: 1.25,
    direction: "at most",
  })),
  ours: step.ours,
  peer: (workspace) => workspace.ours("floor", ...options("bf16", shapes)),
  // Nothing to compare: the products' operands are constants, and "step" compares the losses.
  tolerances: {},
};

export const fp32Step: Experiment = {
  name: "step-fp32",
  rows: [
    {
      name: "step-fp32-2x512",
      what: "full fine-tune step, GPT-2 124M, 2x512 tokens, fp32, against torch fp32",
      unit: "s",
      bar: 0.78,
      direction: "at most",
      value: "step-2x512",
    },
  ],
  ours: async (workspace) =>
    workspace.ours("full-step", await workspace.model("gpt2"), ...options("fp32", "2x512")),
  peer: async (workspace) =>
    workspace.peer("step", await workspace.model("gpt2"), ...options("fp32", "2x512")),
  tolerances: { "first-2x512": 1e-5, "last-2x512": 1e-4 },
};

const options = (precision: string, of: string): string[] => [
  "--precision",
  precision,
  "--shapes",
  of,
];
