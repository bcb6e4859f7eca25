/**
 * Steps of real worker processes, one of which is slower than the others, over loopback gRPC: the coordinator in this
 * process, and an engine that waits so long for each group.
 *
 * node dist/bench/stragglers.js [--workers N] [--speed SHARE] [--groups N] [--group-ms MS] [--steps N]
 *
 *   --workers   all of them, the slow one included; 4
 *   --speed     of the slow one, where the others have 1; 0.2
 *   --groups    a worker, in a step; 4
 *   --group-ms  of a worker of speed 1; 400
 *   --steps     measured, after three in which the coordinator learns who is slow; 10
 *
 * Prints {"values": {"ideal": s, "median": s, "slowest": s, "median-ratio": r, "slowest-ratio": r, "slow-groups": n,
 * "again": n}}. A step lasts from the end of the one before it to its own. The ideal is what the sum of all speeds
 * allows: groups times a group's time over that sum, without the transfers and the update, so that the ratio, which is
 * to be 1.3 at most, is of all that a step takes. `slow-groups` are a step's groups of the slow one, `again` those that
 * another worker computed too.
 */
import { parseArgs } from "node:util";
import { Coordinator } from "#coordinator/coordinator";
import type { StepSource } from "#coordinator/options";
import type { Batch } from "#lib/core/batch";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { coordinatorOptions, forkWorker, testJob } from "#tests/support/cluster";
import { median } from "./frame/compare.js";

const warmupSteps = 3;
const batchesPerGroup = 2;
const rowsPerBatch = 2;

const { values: options } = parseArgs({
  options: {
    workers: { type: "string", default: "4" },
    speed: { type: "string", default: "0.2" },
    groups: { type: "string", default: "4" },
    "group-ms": { type: "string", default: "400" },
    steps: { type: "string", default: "10" },
  },
});
const numWorkers = Number(options.workers);
const slowSpeed = Number(options.speed);
const numGroups = numWorkers * Number(options.groups);
const groupMs = Number(options["group-ms"]);
const totalSteps = warmupSteps + Number(options.steps);

const { sequenceLength } = testJob;
const rowsPerStep = numGroups * batchesPerGroup * rowsPerBatch;

function batchOf(seed: number): Batch {
  const length = rowsPerBatch * sequenceLength;
  const tokens = Int32Array.from({ length }, (_, i) => (seed * 131 + i * i * 7) % 997);
  return { numRows: rowsPerBatch, fields: { tokens, targets: tokens.slice() } };
}
const plan: StepSource = {
  totalSteps,
  microBatches: (step, group) =>
    Array.from({ length: batchesPerGroup }, (_, index) =>
      batchOf((step * numGroups + group) * batchesPerGroup + index),
    ),
  lossWeight: () => rowsPerStep * sequenceLength,
  rowsIn: () => rowsPerStep,
  epochAt: () => 0,
};

const bus = new InProcessEventBus();
const coordinator = new Coordinator(
  coordinatorOptions(totalSteps, bus, {
    ...{ plan, gradientGroups: numGroups, plannedWorkers: numWorkers, minWorkers: numWorkers },
  }),
);
const ends: number[] = [];
let [slowGroups, again] = [0, 0];
bus.subscribe((event) => {
  if (event.type === "worker.lost") coordinator.fail(new Error(`lost a worker: ${event.reason}`));
  if (event.type === "step.completed") ends.push(performance.now() / 1000);
  if (ends.length < warmupSteps) return;
  if (event.type === "group.completed" && event.workerId === "slow") slowGroups += 1;
  if (event.type === "group.leased" && event.isBackup === true) again += 1;
});
const { controlAddress } = await coordinator.start();
const engine = import.meta.resolve("#tests/support/paced-engine");
const workers = Array.from({ length: numWorkers }, (_, index) =>
  forkWorker(controlAddress, {
    LOCKSTEP_TEST_NAME: index === 0 ? "slow" : `worker-${index}`,
    LOCKSTEP_TEST_ENGINE: engine,
    LOCKSTEP_TEST_BATCH_MS: String(groupMs / batchesPerGroup / (index === 0 ? slowSpeed : 1)),
  }),
);
try {
  await coordinator.run();
  await Promise.all(workers.map(({ exited }) => exited));
} finally {
  for (const { process: worker } of workers) worker.kill("SIGKILL");
}

const seconds = ends
  .slice(warmupSteps)
  .map((end, step) => end - (ends[warmupSteps + step - 1] ?? 0));
const ideal = (numGroups * groupMs) / 1000 / (numWorkers - 1 + slowSpeed);
const slowest = Math.max(...seconds);
const values = {
  ideal,
  median: median(seconds),
  slowest,
  "median-ratio": median(seconds) / ideal,
  "slowest-ratio": slowest / ideal,
  "slow-groups": slowGroups / seconds.length,
  again: again / seconds.length,
};
console.log(JSON.stringify({ values }));
process.exit(0);
