import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import type { CoordinatorOptions, StepSource } from "#coordinator/options";
import type { LockstepEvent } from "#lib/core/events";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { mastersSha256 } from "#lib/core/masters-hash";
import { buildParameterLayout, type ElementRange, wireSizeBytes } from "#lib/core/parameter-layout";
import {
  clipCoefficient,
  gradScalerDefaults,
  ShardArithmetic,
  totalNorm,
  type UpdateSettings,
} from "#lib/optim/index";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { FakeEngine } from "#tests/support/fake-engine";
import { causalJob } from "./batches.js";

/** A small job over several blocks, so that shards have different sizes and a tensor spans two. */
const tensors = [
  { name: "embedding", shape: [300, 500] },
  { name: "norm", shape: [1_000] },
  { name: "head", shape: [7, 11] },
];
const layout = buildParameterLayout(tensors, "bfloat16");

const sequenceLength = 16;

export const testJob: WorkerJob = {
  jobId: "test-job",
  modelConfig: {},
  layout,
  precision: "bf16",
  ...causalJob(),
  sequenceLength,
  microBatchSize: 2,
  evalBatchSize: 2,
  generationLength: 32,
  threadsPerWorker: 1,
  parameters: { kind: "full" },
};

/** The same in float16, where the fake engine's gradients overflow with the first scales. */
export const float16Job: WorkerJob = {
  ...testJob,
  precision: "fp16",
  layout: buildParameterLayout(tensors, "float16"),
};

function batchOf(seed: number): Batch {
  const length = 2 * sequenceLength;
  const tokens = Int32Array.from({ length }, (_, i) => (seed * 131 + i * i * 7) % 997);
  const targets = Int32Array.from({ length }, (_, i) =>
    (i + 1) % sequenceLength === 0 ? ignoredTarget : (tokens[i + 1] ?? 0),
  );
  return { numRows: 2, fields: { tokens, targets } };
}

const batchesPerGroup = 2;
const testGroups = 4;

function testPlan(totalSteps: number): StepSource {
  const rowsPerStep = testGroups * batchesPerGroup * 2;
  return {
    totalSteps,
    microBatches: (step, group) =>
      Array.from({ length: batchesPerGroup }, (_, i) =>
        batchOf((step * testGroups + group) * batchesPerGroup + i),
      ),
    lossWeight: () => rowsPerStep * (sequenceLength - 1),
    rowsIn: () => rowsPerStep,
    epochAt: (completedSteps) => completedSteps / totalSteps,
  };
}

export const evaluationBatches: readonly Batch[] = Array.from({ length: 5 }, (_, i) =>
  batchOf(10_000 + i),
);

const initialMaster = (element: number): number =>
  Math.fround(((element * 37) % 1_999) / 1_999 - 0.5);

const updates: UpdateSettings = {
  optimizer: {
    name: "adamw",
    settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 },
  },
  learningRateAt: (completedUpdates) => 1e-2 / (1 + completedUpdates),
  maxGradNorm: 1,
};

async function loadMasters(range: ElementRange, into: Float32Array): Promise<void> {
  for (const { offset, size } of layout.tensors) {
    const end = Math.min(range.end, offset + size);
    for (let element = Math.max(range.start, offset); element < end; element++) {
      into[element - range.start] = initialMaster(element);
    }
  }
}

/** Scales that grow within a few steps. */
export const float16Updates: UpdateSettings = {
  ...updates,
  lossScaling: { ...gradScalerDefaults, growthInterval: 2 },
};

interface Oracle {
  readonly mastersSha256: string;
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  /** What each step's loss was multiplied by. */
  readonly scales: readonly number[];
  /** Evaluation losses before the first step and after the last. */
  readonly evaluationLosses: readonly [number, number];
}

/**
 * The same run in one thread: no shards, no leases, no wire.
 *
 * @param job one whose type needs it has its loss scaled
 */
export async function sequentialOracle(totalSteps: number, job = testJob): Promise<Oracle> {
  const { layout } = job;
  const plan = testPlan(totalSteps);
  const range = { start: 0, end: layout.numElements };
  const arithmetic = await ShardArithmetic.create(layout, range, updates.optimizer);
  await loadMasters(range, arithmetic.masters);
  const engine = new FakeEngine(job);
  const wire = new Uint8Array(wireSizeBytes(layout));
  const losses: number[] = [];
  const norms: number[] = [];
  const scales: number[] = [];
  let scale = job.precision === "fp16" ? 65_536 : 1;
  let numUpdates = 0;
  let updatesOfScale = 0;
  const evaluate = (): number => {
    let lossSum = 0;
    let weight = 0;
    for (const batch of evaluationBatches) {
      const sum = engine.evaluate(batch);
      lossSum += sum.lossSum;
      weight += sum.weight;
    }
    return lossSum / weight;
  };
  engine.loadParameters(arithmetic.publish());
  const before = evaluate();
  for (let step = 0; step < totalSteps; step++) {
    const weight = plan.lossWeight(step);
    let lossSum = 0;
    for (let group = 0; group < testGroups; group++) {
      let groupNllSum = 0;
      const batches = [...plan.microBatches(step, group)];
      for (const [i, batch] of batches.entries()) {
        const out = i === batches.length - 1 ? wire : undefined;
        groupNllSum += engine.accumulate(batch, scale / weight, i === 0, out).lossSum;
      }
      arithmetic.addGroup(wire, group === 0);
      lossSum += groupNllSum;
    }
    const norm = totalNorm(arithmetic.blockSumsOfSquares()) / scale;
    losses.push(lossSum / weight);
    norms.push(norm);
    scales.push(scale);
    if (!Number.isFinite(norm)) {
      scale /= 2;
      updatesOfScale = 0;
      continue;
    }
    arithmetic.apply({
      learningRate: updates.learningRateAt(numUpdates),
      updateNumber: numUpdates + 1,
      gradientScale: clipCoefficient(norm, updates.maxGradNorm) / scale,
    });
    engine.loadParameters(arithmetic.publish());
    numUpdates += 1;
    updatesOfScale += 1;
    if (job.precision === "fp16" && updatesOfScale === 2) {
      scale *= 2;
      updatesOfScale = 0;
    }
  }
  return {
    mastersSha256: mastersSha256(layout, [arithmetic]),
    ...{ losses, norms, scales },
    evaluationLosses: [before, evaluate()],
  };
}

export class EventRecorder {
  readonly bus = new InProcessEventBus();
  readonly events: LockstepEvent[] = [];

  constructor() {
    this.bus.subscribe((event) => this.events.push(event));
  }

  of<T extends LockstepEvent["type"]>(type: T): Extract<LockstepEvent, { type: T }>[] {
    return this.events.filter(
      (event): event is Extract<LockstepEvent, { type: T }> => event.type === type,
    );
  }

  /** Resolves with the first event, past or future, that passes. */
  async until(passes: (event: LockstepEvent) => boolean): Promise<LockstepEvent> {
    const past = this.events.find(passes);
    if (past !== undefined) return past;
    return new Promise((resolve) => {
      const end = this.bus.subscribe((event) => {
        if (!passes(event)) return;
        end();
        resolve(event);
      });
    });
  }
}

export function coordinatorOptions(
  totalSteps: number,
  bus: InProcessEventBus,
  overrides: Partial<CoordinatorOptions> = {},
): CoordinatorOptions {
  return {
    job: testJob,
    bus,
    numShards: 2,
    gradientGroups: testGroups,
    plannedWorkers: 2,
    kindWaitMs: 0,
    plan: testPlan(totalSteps),
    loadMasters,
    updates,
    heartbeatIntervalMs: 100,
    heartbeatTimeoutMs: 10_000,
    leaseTimeoutMs: 20_000,
    ...overrides,
  };
}

export interface TestWorker {
  readonly pid: number;
  readonly incarnation: string;
  readonly process: ChildProcess;
  /** Facts that the process sent: phases, then its outcome. */
  readonly facts: unknown[];
  readonly exited: Promise<{
    readonly code: number | null;
    readonly signal: string | null;
    readonly stderr: string;
  }>;
}

/**
 * A worker of a program; tests have `spawnWorker`.
 *
 * @param prefix program and flags that start the worker's, in a namespace of its own say
 */
export function forkWorker(
  address: string,
  env: Readonly<Record<string, string>> = {},
  [execPath = process.execPath, ...execArgv]: readonly string[] = [],
): TestWorker {
  const incarnation = randomUUID();
  const child = fork(new URL("./cluster-worker.js", import.meta.url), {
    execPath,
    ...(execPath === process.execPath ? {} : { execArgv: [...execArgv, process.execPath] }),
    env: {
      ...process.env,
      LOCKSTEP_TEST_COORDINATOR: address,
      LOCKSTEP_TEST_INCARNATION: incarnation,
      ...env,
    },
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  let stderr = "";
  child.stderr?.on("data", (data: Buffer) => {
    stderr += data.toString();
  });
  const facts: unknown[] = [];
  child.on("message", (fact) => facts.push(fact));
  return {
    pid: child.pid ?? 0,
    incarnation,
    process: child,
    facts,
    exited: new Promise((resolve) => {
      child.once("close", (code, signal) => resolve({ code, signal, stderr }));
    }),
  };
}
