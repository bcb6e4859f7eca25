import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { LockstepEvent, RunResumed, WorkerState } from "#lib/core/events";
import { addProcessMetrics } from "#lib/core/process-metrics";
import { allMetrics } from "#lib/objectives/metrics";
import type { EventBus } from "#lib/wire/event-bus";

const workerStates: readonly WorkerState[] = [
  "compiling",
  "idle",
  "loading",
  "computing",
  "sending",
  "lost",
];

/** Seconds: a step of a small model on a GPU to one of a large model over a slow network. */
const stepBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320];
const syncBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** A long poll for the next task lasts up to half a minute. */
const rpcBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 15, 30, 60];

/** Prometheus metrics of a run, fed by its events alone. Base units, prefix `lockstep_`. */
export class CoordinatorMetrics {
  readonly registry = new Registry();
  readonly #states = new Map<string, WorkerState>();
  readonly #deviceSeconds = new Map<string, number>();

  readonly #samples = this.#counter("training_samples_total", "Rows trained on.");
  readonly #tokens = this.#counter("training_tokens_total", "Tokens of the rows trained on.");
  readonly #steps = this.#counter("training_steps_total", "Optimizer updates made.");
  readonly #skippedSteps = this.#counter(
    "training_skipped_steps_total",
    "Steps without an update, because their gradient was not finite.",
  );
  readonly #rpcs = this.#counter("rpc_requests_total", "RPCs handled.", ["method", "code"]);
  readonly #receivedBytes = this.#counter(
    "reducer_received_bytes_total",
    "Gradient bytes that a reducer shard received.",
    ["shard"],
  );
  readonly #sentBytes = this.#counter(
    "reducer_sent_bytes_total",
    "Parameter bytes that a reducer shard sent.",
    ["shard"],
  );
  readonly #workerFailures = this.#counter("worker_failures_total", "Workers that were lost.");
  readonly #requeued = this.#counter(
    "gradient_groups_requeued_total",
    "Gradient groups that were leased again.",
  );
  readonly #quarantined = this.#counter(
    "workers_quarantined_total",
    "Times that a worker was kept out of the run.",
  );
  readonly #diverged = this.#counter(
    "gradient_groups_diverged_total",
    "Groups of which workers computed different bits.",
  );
  readonly #refusedPushes = this.#counter(
    "refused_pushes_total",
    "Pushes that a shard refused for whose they are.",
    ["code"],
  );
  readonly #devices = this.#counter(
    "device_seconds_total",
    "Seconds for which a worker held its device; GPU hours are this over 3600.",
    ["worker", "device_type"],
  );
  readonly #checkpoints = this.#counter("checkpoints_total", "Checkpoints saved.");

  readonly #loss = this.#gauge("training_loss", "Mean loss of the latest step, nats per token.");
  readonly #gradientNorm = this.#gauge(
    "training_gradient_norm",
    "Global gradient norm of the latest step, before clipping.",
  );
  readonly #lossScale = this.#gauge(
    "training_loss_scale",
    "What the loss of the latest step was multiplied by for backward: 1 but for fp16.",
  );
  readonly #learningRate = this.#gauge(
    "training_learning_rate",
    "Learning rate of the latest step.",
  );
  readonly #epoch = this.#gauge("training_epoch", "Epochs completed, fractional.");
  readonly #tokensPerSecond = this.#gauge(
    "training_tokens_per_second",
    "Tokens per second of the latest step.",
  );
  readonly #samplesPerSecond = this.#gauge(
    "training_samples_per_second",
    "Rows per second of the latest step.",
  );
  readonly #evaluationLoss = this.#gauge(
    "evaluation_loss",
    "Validation loss of the latest evaluation, nats per token.",
  );
  readonly #evaluationScore = this.#gauge(
    "evaluation_score_ratio",
    "A classifier's scores in the latest evaluation, 0 to 1.",
    ["score"],
  );
  /** Of the figures that are no shares: one each, by the metric's key. */
  readonly #evaluationFigures = new Map(
    allMetrics()
      .filter(({ isRatio }) => !isRatio)
      .map(({ key, help }) => [key, this.#gauge(`evaluation_${key}`, help)]),
  );
  readonly #workers = this.#gauge("workers", "Workers by state.", ["state"]);
  readonly #utilization = this.#gauge(
    "device_utilization_ratio",
    "Share of a worker's device that was busy, 0 to 1.",
    ["worker", "device_type"],
  );
  readonly #memoryUsed = this.#gauge(
    "device_memory_used_bytes",
    "Memory of a worker's device in use.",
    ["worker", "device_type"],
  );
  readonly #memoryTotal = this.#gauge("device_memory_total_bytes", "Memory of a worker's device.", [
    "worker",
    "device_type",
  ]);

  readonly #stepDuration = this.#histogram(
    "step_duration_seconds",
    "Seconds of a step, from its first lease to its publication.",
    stepBuckets,
  );
  readonly #syncDuration = this.#histogram(
    "sync_duration_seconds",
    "Seconds from a step's last gradient to the publication of new parameters.",
    syncBuckets,
  );
  readonly #rpcDuration = this.#histogram(
    "rpc_duration_seconds",
    "Seconds of an RPC.",
    rpcBuckets,
    ["method"],
  );
  readonly #checkpointDuration = this.#histogram(
    "checkpoint_duration_seconds",
    "Seconds that a checkpoint took to write.",
    stepBuckets,
  );

  constructor(bus: Pick<EventBus, "subscribe">) {
    addProcessMetrics(this.registry, "coordinator");
    this.#showStates();
    this.#lossScale.set(1);
    bus.subscribe((event) => this.#observe(event));
  }

  #observe(event: LockstepEvent): void {
    switch (event.type) {
      case "step.completed":
        this.#steps.inc();
        this.#samples.inc(event.numRows);
        this.#tokens.inc(event.numTokens);
        this.#loss.set(event.loss);
        this.#gradientNorm.set(event.gradientNorm);
        this.#lossScale.set(event.lossScale ?? 1);
        if (!Number.isFinite(event.gradientNorm)) this.#skippedSteps.inc();
        this.#learningRate.set(event.learningRate);
        this.#epoch.set(event.epoch);
        this.#tokensPerSecond.set(event.tokensPerSecond);
        if (event.stepSeconds > 0) {
          this.#samplesPerSecond.set(event.numRows / event.stepSeconds);
        }
        this.#stepDuration.observe(event.stepSeconds);
        this.#syncDuration.observe(event.syncSeconds);
        break;
      case "run.resumed": {
        const latest = event.evaluations.at(-1);
        if (latest !== undefined) this.#showEvaluation(latest);
        break;
      }
      case "evaluation.completed":
        this.#showEvaluation(event);
        break;
      case "worker.joined":
        this.#setState(event.workerId, "idle");
        break;
      case "worker.state":
        this.#setState(event.workerId, event.state);
        break;
      case "worker.lost":
        this.#workerFailures.inc();
        this.#setState(event.workerId, "lost");
        break;
      case "worker.left":
        this.#states.delete(event.workerId);
        this.#forgetDevice(event.workerId);
        this.#showStates();
        break;
      case "worker.telemetry": {
        const labels = { worker: event.workerId, device_type: event.deviceType };
        this.#utilization.set(labels, event.utilization);
        this.#memoryUsed.set(labels, event.memoryUsedBytes);
        this.#memoryTotal.set(labels, event.memoryTotalBytes);
        // The worker reports a total; a worker that registered again starts its total anew.
        const before = this.#deviceSeconds.get(event.workerId) ?? 0;
        const { deviceSeconds } = event;
        this.#devices.inc(labels, deviceSeconds >= before ? deviceSeconds - before : deviceSeconds);
        this.#deviceSeconds.set(event.workerId, deviceSeconds);
        break;
      }
      case "group.requeued":
        this.#requeued.inc();
        break;
      case "worker.quarantined":
        this.#quarantined.inc();
        break;
      case "group.diverged":
        this.#diverged.inc();
        break;
      case "push.refused":
        this.#refusedPushes.inc({ code: event.code }, 1 + event.numUntold);
        break;
      case "checkpoint.saved":
        this.#checkpoints.inc();
        this.#checkpointDuration.observe(event.seconds);
        break;
      case "bytes.transferred": {
        const counter = event.direction === "gradients" ? this.#receivedBytes : this.#sentBytes;
        counter.inc({ shard: String(event.shard) }, event.bytes);
        break;
      }
      case "rpc.handled":
        this.#rpcs.inc({ method: event.method, code: event.code });
        this.#rpcDuration.observe({ method: event.method }, event.seconds);
        break;
      default:
        break;
    }
  }

  #showEvaluation({ loss, metrics }: RunResumed["evaluations"][number]): void {
    this.#evaluationLoss.set(loss);
    for (const [key, value] of Object.entries(metrics)) {
      const figure = this.#evaluationFigures.get(key);
      if (figure === undefined) this.#evaluationScore.set({ score: key }, value);
      else figure.set(value);
    }
  }

  #setState(workerId: string, state: WorkerState): void {
    if (this.#states.get(workerId) === state) return;
    this.#states.set(workerId, state);
    this.#showStates();
    if (state === "lost") this.#forgetDevice(workerId);
  }

  /** A gauge of a device that nobody reports any more would stay at its last value for ever. */
  #forgetDevice(workerId: string): void {
    for (const deviceType of ["cpu", "gpu"]) {
      for (const gauge of [this.#utilization, this.#memoryUsed, this.#memoryTotal]) {
        gauge.remove(workerId, deviceType);
      }
    }
  }

  #showStates(): void {
    for (const state of workerStates) {
      const count = [...this.#states.values()].filter((value) => value === state).length;
      this.#workers.set({ state }, count);
    }
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: `lockstep_${name}`, help, labelNames, registers: [this.registry] });
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name: `lockstep_${name}`, help, labelNames, registers: [this.registry] });
  }

  #histogram(
    name: string,
    help: string,
    buckets: readonly number[],
    labelNames: string[] = [],
  ): Histogram {
    return new Histogram({
      name: `lockstep_${name}`,
      help,
      labelNames,
      buckets: [...buckets],
      registers: [this.registry],
    });
  }
}
