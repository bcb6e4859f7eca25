/**
 * Optimizer steps of two workers on this machine: the coordinator in this process, as `lockstep train` has
 * it, and two `lockstep worker` processes with one thread each, over loopback gRPC. A step is 8 rows of
 * 512 tokens: a gradient group a worker, of four micro-batches of one row.
 *
 * node dist/bench/two-workers.js MODEL_DIR [--precision bf16|fp32] [--repeat N] [--shards threads|processes]
 *
 * Prints {"values": {"two-workers": tokens/s, "sync-share": percent, "worker-memory": GB}, "check":
 * {"loss-1": nats, ...}}: medians of `--repeat` steps after a warm-up step.
 *
 * - A step lasts from the publication of one version of the parameters to that of the next.
 * - Synchronisation is what a step lasts beyond the compute of its slower worker (the seconds in its
 *   engine, from its own metrics), as a share of that compute.
 * - The two shards are threads of this process, or processes of their own (`lockstep reducer`).
 * - Memory is the larger peak of resident memory of the two worker processes (VmHWM).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Coordinator } from "#coordinator/coordinator";
import type { StepSource } from "#coordinator/options";
import type { WorkerJob } from "#lib/core/job";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { logTail, Supervisor } from "#run/supervisor";
import { startReducers } from "./frame/reducers.js";
import { median } from "./frame/compare.js";
import { peakResidentBytes } from "./frame/peak-memory.js";
import { openSeededModel } from "./frame/seeded-model.js";
import { inputFields, nextTokenField } from "#lib/core/batch";

const numWorkers = 2;
const numShards = 2;
const rowsPerStep = 8;
const rowsPerMicroBatch = 1;
const sequenceLength = 512;
const microBatchesPerGroup = rowsPerStep / rowsPerMicroBatch / numWorkers;
const learningRate = 1e-4;
const warmupSteps = 1;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    precision: { type: "string", default: "bf16" },
    repeat: { type: "string", default: "2" },
    shards: { type: "string", default: "threads" },
  },
});
const directory = positionals[0];
if (directory === undefined) {
  process.stderr.write("two-workers takes a model directory\n");
  process.exit(2);
}
const precision = options.precision === "fp32" ? "fp32" : "bf16";
const { modelConfig, layout, loadMasters, batch } = openSeededModel(directory, precision);

const job: WorkerJob = {
  ...{ jobId: "bench", modelConfig, layout, precision, sequenceLength, generationLength: 0 },
  objective: { kind: "causal_lm" },
  batchFields: [...inputFields(), nextTokenField],
  ...{ microBatchSize: rowsPerMicroBatch, evalBatchSize: rowsPerMicroBatch, threadsPerWorker: 1 },
  parameters: { kind: "full" },
};
const plan: StepSource = {
  totalSteps: warmupSteps + Number(options.repeat),
  // The rows of the file in their order, a worker's group after the other's, as in the peer.
  microBatches: (step, group) =>
    Array.from({ length: microBatchesPerGroup }, (_, index) => {
      const micro = group * microBatchesPerGroup + index;
      return batch(rowsPerMicroBatch, sequenceLength, step * rowsPerStep + micro);
    }),
  lossWeight: () => rowsPerStep * (sequenceLength - 1),
  rowsIn: () => rowsPerStep,
  epochAt: () => 0,
};

const logDirectory = mkdtempSync(join(tmpdir(), "lockstep-two-workers-"));
process.once("exit", () => rmSync(logDirectory, { recursive: true, force: true }));
const startShard =
  options.shards === "processes" ? await startReducers(numShards, logDirectory) : undefined;

const bus = new InProcessEventBus();
const coordinator = new Coordinator({
  ...{ job, bus, plan, loadMasters, numShards, gradientGroups: numWorkers },
  ...(startShard === undefined ? {} : { startShard }),
  plannedWorkers: numWorkers,
  updates: {
    optimizer: {
      name: "adamw",
      settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 },
    },
    ...{ learningRateAt: () => learningRate, maxGradNorm: 1 },
  },
});

/** When each version was published, and what each worker had computed until then, in seconds. */
const marks: { readonly seconds: number; readonly computed: Promise<readonly number[]> }[] = [];
const losses: number[] = [];
const metricsOf = new Map<number, string>();
const pids: number[] = [];
let peakBytes = 0;

bus.subscribe((event) => {
  if (event.type === "worker.joined") pids.push(event.pid);
  // A worker that failed would leave the other with both groups.
  if (event.type === "worker.lost") coordinator.fail(new Error(`lost a worker: ${event.reason}`));
  if (event.type !== "step.completed") return;
  losses.push(event.loss);
  marks.push({ seconds: performance.now() / 1000, computed: computeSeconds() });
  peakBytes = Math.max(...pids.map(peakResidentBytes));
});

/** Read while the workers fetch the new parameters: a worker counts a micro-batch when it is done. */
async function computeSeconds(): Promise<readonly number[]> {
  return Promise.all(
    [...metricsOf.values()].map(async (address) => {
      const text = await (await fetch(`http://${address}/metrics`)).text();
      return Number(/^lockstep_worker_compute_seconds_total (\S+)/m.exec(text)?.[1]);
    }),
  );
}

const { controlAddress } = await coordinator.start();
const supervisor = new Supervisor({
  ...{ numWorkers, logDirectory, maxRestarts: 0 },
  workerArgs: ["--coordinator", controlAddress, "--device-threads", "1", "--use-cpu"],
  environment: () => ({ CUDA_VISIBLE_DEVICES: "" }),
  onMetrics: (index, address) => metricsOf.set(index, address),
  onExit: ({ reason, logFile }) =>
    void logTail(logFile).then((lines) =>
      coordinator.fail(new Error(`a worker ended (${reason}): ${lines.join("\n")}`)),
    ),
  onExhausted: () => {},
  onLogFailure: () => {},
});
process.once("exit", () => supervisor.killAll());
supervisor.start();
const ended = await coordinator.run();
await supervisor.stop();
await ended.releaseShards(true);

const computed = await Promise.all(marks.map((mark) => mark.computed));
const stepSeconds: number[] = [];
const shares: number[] = [];
for (let step = warmupSteps; step < marks.length; step++) {
  const seconds = (marks[step]?.seconds ?? 0) - (marks[step - 1]?.seconds ?? 0);
  const compute = Math.max(
    ...(computed[step] ?? []).map((total, worker) => total - (computed[step - 1]?.[worker] ?? 0)),
  );
  stepSeconds.push(seconds);
  shares.push((100 * (seconds - compute)) / compute);
}
const values = {
  "two-workers": (rowsPerStep * sequenceLength) / median(stepSeconds),
  "sync-share": median(shares),
  "worker-memory": peakBytes / 1e9,
};
const check = Object.fromEntries(losses.map((loss, step) => [`loss-${step + 1}`, loss]));
console.log(JSON.stringify({ values, check }));
process.exit(0);
