import type { Experiment } from "#bench/frame/experiment";
import type { Bars, RowPrecision } from "#bench/frame/precision";

/** Steps in the table: the first warms up, as on both sides. */
const numSteps = 3;
const bar: Bars = { bf16: 1.25, fp32: 1.15 };
const measuredSteps = ["--repeat", String(numSteps - 1)];

/** Two workers with a thread each on one machine, the coordinator beside them; the peer has two ranks. */
export const twoWorkers = (precision: RowPrecision): Experiment => ({
  name: "two-workers",
  rows: [
    {
      name: "two-workers",
      what: `two workers, GPT-2 124M, 8x512 tokens a step, accumulation 4, ${precision}, against torch DDP (gloo)`,
      unit: "tokens/s",
      bar: bar[precision],
      direction: "at least",
    },
    {
      name: "sync-share",
      what: "synchronisation in these steps, beside the compute of the slower worker",
      unit: "%",
      bar: 12,
      direction: "at most",
      withoutPeer: true,
    },
    {
      name: "worker-memory",
      what: "peak resident memory of a worker in these steps, against a DDP rank",
      unit: "GB",
      bar: 0.75,
      direction: "at most",
    },
  ],
  ours: async (workspace) =>
    workspace.ours("two-workers", await workspace.model("gpt2"), ...options(precision)),
  peer: async (workspace) =>
    workspace.peer("ddp", await workspace.model("gpt2"), ...options(precision)),
  tolerances: Object.fromEntries(
    Array.from({ length: numSteps }, (_, step) => [`loss-${step + 1}`, step === 0 ? 1e-3 : 3e-3]),
  ),
});

const options = (precision: RowPrecision): string[] => ["--precision", precision, ...measuredSteps];
