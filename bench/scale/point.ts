/**
 * One point of the scaling table, in a process of its own: the real coordinator and reducer shards
 * here, simulated workers in processes beside it. Prints one JSON line.
 *
 * A step has three phases, cut by this process' clock: pull (from the publication to the moment at
 * which every worker holds the parameters), push (until the last group is reported; shards add groups
 * meanwhile), reduce (last addition, norm, clip, AdamW, publication).
 */
import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { Coordinator } from "#coordinator/coordinator";
import type { StepSource } from "#coordinator/options";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout, wireSizeBytes } from "#lib/core/parameter-layout";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { median } from "#bench/frame/compare";
import { cpuSeconds, type HostMessage, type HostOptions, type ProceedMessage } from "./messages.js";
import {
  type PhaseSample,
  type PointOptions,
  type PointResult,
  pointBytes,
  summarisePhase,
} from "./table.js";
import { inputFields, nextTokenField } from "#lib/core/batch";

const width = 768;
/** Share of the vectors in GPT-2's parameters. */
const vectorShare = 0.001;
const spareBytes = 2 * 1024 ** 3;

const options = JSON.parse(process.argv[2] ?? "") as PointOptions;
const { millionParameters, numWorkers, numShards, groupsPerWorker, numSteps, numHosts } = options;
const numGroups = numWorkers * groupsPerWorker;
const layout = buildParameterLayout(
  [
    { name: "matrices", shape: [Math.round((millionParameters * 1e6) / width), width] },
    { name: "vectors", shape: [Math.round(millionParameters * 1e6 * vectorShare)] },
  ],
  "bfloat16",
);
const wireBytes = wireSizeBytes(layout);
const neededBytes = pointBytes({ ...options, numParameters: layout.numElements });
/** Pages of files that the system would give back count as free. */
const availableBytes =
  Number(/MemAvailable:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]) * 1024;
if (neededBytes + spareBytes > availableBytes) {
  const gib = (bytes: number): string => (bytes / 1024 ** 3).toFixed(1);
  process.stderr.write(
    `left out: ${gib(neededBytes)} GiB and ${gib(spareBytes)} to spare of ${gib(availableBytes)} free\n`,
  );
  process.exit(3);
}

const job: WorkerJob = {
  ...{ jobId: "scale", modelConfig: {}, layout, precision: "bf16", threadsPerWorker: 1 },
  objective: { kind: "causal_lm" },
  batchFields: [...inputFields(), nextTokenField],
  ...{ sequenceLength: 1, microBatchSize: 1, evalBatchSize: 1, generationLength: 0 },
  parameters: { kind: "full" },
};
const batch = { numRows: 1, fields: { tokens: Int32Array.of(1), targets: Int32Array.of(1) } };
const plan: StepSource = {
  // The first step is for connections, fresh pages and the compiler's tiers.
  totalSteps: numSteps + 1,
  microBatches: () => [batch],
  lossWeight: () => numGroups,
  rowsIn: () => numGroups,
  epochAt: () => 0,
};

const bus = new InProcessEventBus();
const coordinator = new Coordinator({
  ...{ job, bus, numShards, gradientGroups: numGroups, plannedWorkers: numWorkers, plan },
  loadMasters: async (_range, into) => {
    into.fill(0.02);
  },
  updates: {
    optimizer: {
      name: "adamw",
      settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 },
    },
    ...{ learningRateAt: () => 1e-5, maxGradNorm: 1 },
  },
  heartbeatTimeoutMs: 3_600_000,
  leaseTimeoutMs: 3_600_000,
});

const hosts: ChildProcess[] = [];
const hostCpu = new Map<number, number>();
interface Mark {
  readonly ms: number;
  readonly cpu: number;
  readonly workerCpu: number;
}
const mark = (): Mark => ({
  ms: performance.now(),
  cpu: cpuSeconds(),
  workerCpu: [...hostCpu.values()].reduce((sum, value) => sum + value, 0),
});
const between = (from: Mark, to: Mark): PhaseSample => ({
  seconds: (to.ms - from.ms) / 1000,
  shardCpuSeconds: to.cpu - from.cpu,
  workerCpuSeconds: to.workerCpu - from.workerCpu,
});
const samples: Record<"pull" | "push" | "reduce", PhaseSample[]> = {
  ...{ pull: [], push: [], reduce: [] },
};

let published: Mark | undefined;
let pulled: Mark | undefined;
let numPulled = 0;
let numPushed = 0;
let numReported = 0;
let pushed: Mark | undefined;

function fail(reason: string): never {
  process.stderr.write(`${reason}\n`);
  for (const host of hosts) host.kill();
  process.exit(1);
}

function onHostMessage(host: number, message: HostMessage): void {
  if (message.kind === "failed") fail(message.reason);
  hostCpu.set(host, message.cpuSeconds);
  if (message.kind === "pushed") {
    numPushed += 1;
    endOfPush();
    return;
  }
  numPulled += 1;
  if (numPulled < numWorkers) return;
  numPulled = 0;
  pulled = mark();
  const proceed: ProceedMessage = { step: message.step };
  for (const child of hosts) child.send(proceed);
}

/** Both must have been seen: the workers' processor time comes with their message. */
function endOfPush(): void {
  if (numPushed < numGroups || numReported < numGroups) return;
  pushed = mark();
}

bus.subscribe((event) => {
  if (event.type === "run.failed") fail(event.message);
  if (event.type === "group.completed") {
    numReported += 1;
    endOfPush();
  }
  if (event.type !== "step.completed") return;
  const now = mark();
  if (published !== undefined && pulled !== undefined && pushed !== undefined) {
    samples.pull.push(between(published, pulled));
    samples.push.push(between(pulled, pushed));
    samples.reduce.push(between(pushed, now));
  }
  published = mark();
  numPushed = 0;
  numReported = 0;
});

const { controlAddress } = await coordinator.start();
for (let host = 0; host < numHosts; host++) {
  const firstWorker = Math.floor((numWorkers * host) / numHosts);
  const hostOptions: HostOptions = {
    coordinatorAddress: controlAddress,
    firstWorker,
    numWorkers: Math.floor((numWorkers * (host + 1)) / numHosts) - firstWorker,
  };
  const child = fork(new URL("./worker-host.js", import.meta.url), [JSON.stringify(hostOptions)]);
  child.on("message", (message: HostMessage) => onHostMessage(host, message));
  hosts.push(child);
}
await coordinator.run();
if (samples.push.length !== numSteps) fail(`measured ${samples.push.length} of ${numSteps} steps`);
const stepSeconds = samples.push.map(
  (push, i) => push.seconds + (samples.pull[i]?.seconds ?? 0) + (samples.reduce[i]?.seconds ?? 0),
);
const result: PointResult = {
  ...options,
  numParameters: layout.numElements,
  stepSeconds: median(stepSeconds),
  pull: summarisePhase(samples.pull, numWorkers * wireBytes),
  push: summarisePhase(samples.push, numGroups * wireBytes),
  reduce: summarisePhase(samples.reduce, layout.numElements * 4),
  shardResidentGib: process.resourceUsage().maxRSS / 1024 ** 2,
};
console.log(JSON.stringify(result));
