import type { Command, Experiment } from "#bench/frame/experiment";
import type { Bars, RowPrecision } from "#bench/frame/precision";
import type { Workspace } from "#bench/frame/workspace";

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

/** The same steps with shards in processes of their own, against shards in threads: the same numbers, as fast. */
export const shardProcesses = (precision: RowPrecision): Experiment => ({
  name: "shard-processes",
  rows: [
    {
      name: "shard-processes",
      what: `the same steps with two shards in processes, ${precision}, against shards in the coordinator's threads`,
      unit: "tokens/s",
      bar: 0.95,
      direction: "at least",
      value: "two-workers",
    },
  ],
  ours: async (workspace) => stepsWithShards(workspace, precision, "processes"),
  peer: async (workspace) => stepsWithShards(workspace, precision, "threads"),
  tolerances: Object.fromEntries(
    Array.from({ length: numSteps }, (_, step) => [`loss-${step + 1}`, 0]),
  ),
});

const stepsWithShards = async (
  workspace: Workspace,
  precision: RowPrecision,
  shards: "threads" | "processes",
): Promise<Command> => {
  const model = await workspace.model("gpt2");
  return workspace.ours("two-workers", model, ...options(precision), "--shards", shards);
};

const options = (precision: RowPrecision): string[] => ["--precision", precision, ...measuredSteps];
