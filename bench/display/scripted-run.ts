import { describedObjective } from "#lib/objectives/metrics";
import type { LockstepEvent } from "#lib/core/events";

/** An event and the milliseconds that pass before it. */
interface TimedEvent {
  readonly afterMs: number;
  readonly event: LockstepEvent;
}

/** A whole run as events, with the shape and about the figures of the quick start; the same every time. */
export function* scriptedRun(
  options: { readonly totalSteps?: number; readonly loseWorkerAtStep?: number } = {},
): Generator<TimedEvent> {
  const { totalSteps = 14, loseWorkerAtStep } = options;
  const at = (afterMs: number, event: LockstepEvent): TimedEvent => ({ afterMs, event });
  const workers = ["worker-1", "worker-2"];
  yield at(0, { type: "phase.changed", phase: "preparing", detail: "reading the data set" });
  yield at(800, {
    type: "run.started",
    runName: "SmolLM2-135M-Instruct on sotu",
    totalSteps,
    globalBatchSize: 8,
    sequenceLength: 512,
    gradientGroups: 2,
    plannedWorkers: 2,
    numParameters: 134_515_008,
    numTrainRows: 4_321,
    numTrainTokens: 4_321 * 512,
    numValidationRows: 24,
    objective: describedObjective({ kind: "causal_lm" }),
  });
  yield at(100, { type: "phase.changed", phase: "waiting-for-workers" });
  for (const [index, workerId] of workers.entries()) {
    yield at(700, {
      type: "worker.joined",
      workerId,
      host: "localhost",
      pid: 4_242 + index,
      deviceKind: "cpu avx512_bf16 1 thread",
      deviceType: "cpu",
    });
    yield at(100, { type: "worker.state", workerId, state: "compiling" });
  }
  yield at(900, { type: "phase.changed", phase: "evaluating" });
  yield at(600, {
    type: "evaluation.completed",
    step: 0,
    loss: 3.5123,
    weight: 12_264,
    seconds: 8.1,
    metrics: { perplexity: Math.exp(3.5123) },
  });
  const prompt = "My fellow citizens, the state of our union";
  yield at(50, { type: "phase.changed", phase: "generating" });
  yield at(400, {
    type: "sample.generated",
    step: 0,
    prompt,
    text: " is a reflection of our collective efforts. We must work together to build a better future for all of us.",
  });
  yield at(50, { type: "phase.changed", phase: "training" });
  let lost = false;
  for (let step = 1; step <= totalSteps; step++) {
    for (const [group, planned] of workers.entries()) {
      const workerId = lost ? "worker-1" : planned;
      yield at(30, { type: "group.leased", step: step - 1, group, workerId, attempt: 1 });
      yield at(0, { type: "worker.state", workerId, state: "computing" });
      yield at(20, {
        type: "worker.telemetry",
        workerId,
        deviceType: "cpu",
        utilization: 0.94 + 0.01 * (step % 5),
        memoryUsedBytes: 1.9e9 + 1e7 * step,
        memoryTotalBytes: 25e9,
        deviceSeconds: 6 * step,
      });
    }
    if (step === loseWorkerAtStep) {
      lost = true;
      const reason = "the process was killed by SIGKILL";
      yield at(150, { type: "worker.lost", workerId: "worker-2", reason });
      yield at(10, {
        type: "group.requeued",
        step: step - 1,
        group: 1,
        workerId: "worker-2",
        reason,
      });
      yield at(10, {
        type: "worker.state",
        workerId: "worker-1",
        state: "computing",
        step,
        group: 1,
      });
    }
    for (const [group, planned] of workers.entries()) {
      const workerId = lost ? "worker-1" : planned;
      yield at(150, { type: "worker.state", workerId, state: "sending" });
      yield at(60, {
        type: "group.completed",
        step: step - 1,
        group,
        workerId,
        seconds: 5.4,
        weight: 2_044,
      });
      yield at(0, {
        type: "bytes.transferred",
        direction: "gradients",
        shard: group,
        bytes: 134e6,
      });
      yield at(0, {
        type: "bytes.transferred",
        direction: "parameters",
        shard: group,
        bytes: 134e6,
      });
      yield at(0, { type: "rpc.handled", method: "CompleteTask", code: "OK", seconds: 0.002 });
      yield at(0, { type: "worker.state", workerId, state: "idle" });
    }
    yield at(40, {
      type: "step.completed",
      step,
      totalSteps,
      epoch: step / 540,
      loss: 3.52 - 0.18 * (1 - Math.exp(-step / 5)) + 0.03 * Math.sin(7 * step),
      learningRate: 1e-4 * Math.min(1, (step - 1) / 2) * (1 - (step - 1) / (2 * totalSteps)),
      gradientNorm: 2.1 - 0.05 * step,
      numRows: 8,
      numTokens: 4_088,
      stepSeconds: 6.1 + 0.1 * (step % 3),
      syncSeconds: 0.42,
      tokensPerSecond: 4_088 / 6.2,
    });
  }
  yield at(50, { type: "phase.changed", phase: "evaluating" });
  yield at(500, {
    type: "evaluation.completed",
    step: totalSteps,
    loss: 3.3391,
    weight: 12_264,
    seconds: 8.0,
    metrics: { perplexity: Math.exp(3.3391) },
  });
  yield at(300, {
    type: "sample.generated",
    step: totalSteps,
    prompt,
    text: " is in the hands of the people. The people of the United States have the right to expect that the laws of their country shall be faithfully executed.",
  });
  for (const workerId of lost ? workers.slice(0, 1) : workers) {
    yield at(20, { type: "worker.left", workerId, reason: "the job is over" });
  }
  yield at(50, { type: "phase.changed", phase: "saving" });
  yield at(500, {
    type: "checkpoint.saved",
    step: totalSteps,
    directory: "runs/quickstart",
    seconds: 1.7,
    bytes: 538_090_408,
  });
  yield at(50, {
    type: "run.completed",
    outcome: "finished",
    step: totalSteps,
    directory: "runs/quickstart",
    mastersSha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    seconds: 131,
  });
}
