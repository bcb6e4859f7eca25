import type { Experiment, Row } from "#bench/frame/experiment";
import type { Bars, RowPrecision } from "#bench/frame/precision";

const shapes = ["2x512", "1x1024"] as const;
const bars = {
  eager: { bf16: 0.72, fp32: 0.82 },
  compiled: { bf16: 1, fp32: 0.92 },
} satisfies Record<string, Bars>;

const tolerances = {
  "first-2x512": 1e-3,
  "last-2x512": 3e-3,
  "first-1x1024": 1e-3,
  "last-1x1024": 3e-3,
};

/** A row for the step of each shape; the second says only what is other. */
const stepRows = (prefix: string, what: string, bar: number): Row[] =>
  shapes.map((shape, index) => ({
    name: `${prefix}-${shape}`,
    value: `step-${shape}`,
    what: index === 0 ? what : `the same with ${shape} tokens`,
    unit: "s",
    bar,
    direction: "at most",
  }));

/** Gradients out, norm, clip, AdamW and parameters in: what a step of a fine-tune takes. */
export const step = (precision: RowPrecision): Experiment => ({
  name: "step",
  rows: stepRows(
    "step",
    `full fine-tune step, GPT-2 124M, ${shapes[0]} tokens, ${precision}, against ${eager(precision)}`,
    bars.eager[precision],
  ),
  ours: async (workspace) =>
    workspace.ours("full-step", await workspace.model("gpt2"), ...options(precision, shapes)),
  peer: async (workspace) =>
    workspace.peer("step", await workspace.model("gpt2"), ...options(precision, shapes)),
  tolerances,
});

const eager = (precision: RowPrecision): string =>
  precision === "bf16" ? "torch bf16 autocast" : "torch fp32";

/** The same beside what a demanding user of torch runs. What is compiled stays for the next pair. */
export const compiledStep = (precision: RowPrecision): Experiment => ({
  ...step(precision),
  name: "step-compiled",
  rows: stepRows(
    "step-compiled",
    `full fine-tune step, GPT-2 124M, ${shapes[0]} tokens, ${precision}, against torch.compile`,
    bars.compiled[precision],
  ),
  peer: async (workspace) =>
    workspace.peer(
      ...(["step", await workspace.model("gpt2"), ...options(precision, shapes)] as const),
      ...["--compile", workspace.path("inductor")],
    ),
});

/** How far the step is from what its matrix products alone take. */
export const floor = (precision: RowPrecision): Experiment => ({
  name: "floor",
  rows: shapes.map((shape) => ({
    name: `floor-${shape}`,
    value: `step-${shape}`,
    what: `full step of ${shape} tokens, ${precision}, against its matrix products alone in TensorFlow`,
    unit: "s",
    bar: 1.25,
    direction: "at most",
  })),
  ours: step(precision).ours,
  peer: (workspace) => workspace.ours("floor", ...options(precision, shapes)),
  // Nothing to compare: the products' operands are constants, and "step" compares the losses.
  tolerances: {},
});

/** For processors on which the other rows are bf16. */
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
    workspace.ours("full-step", await workspace.model("gpt2"), ...options("fp32", ["2x512"])),
  peer: async (workspace) =>
    workspace.peer("step", await workspace.model("gpt2"), ...options("fp32", ["2x512"])),
  tolerances: { "first-2x512": 1e-5, "last-2x512": 1e-4 },
};

const options = (precision: RowPrecision, of: readonly string[]): string[] => [
  ...["--precision", precision, "--shapes", of.join(",")],
];
