import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type {
  ConnectionRefusal,
  LockstepEvent,
  RunResumed,
  StepCompleted,
  TaskFigures,
  WorkerState,
} from "#lib/core/events";
import { ewcRatio, forgottenOf, type GeneralLoss } from "#lib/core/forgetting";
import { addProcessMetrics } from "#lib/core/process-metrics";
import { allMetrics } from "#lib/objectives/metrics";
import type { EventBus } from "#lib/wire/event-bus";
import { ShardMetrics } from "./shard-metrics.js";
import { CheckpointMetrics } from "./checkpoint-metrics.js";

/** A run of one task, which has no name. */
const wholeRun = ({ loss }: StepCompleted): TaskFigures => ({ name: "", weight: 1, loss });

const workerStates: readonly WorkerState[] = [
  "compiling",
  "idle",
  "loading",
  "computing",
  "sending",
  "lost",
];

const connectionPorts = ["control", "shard", "http"];
const refusalReasons: readonly ConnectionRefusal[] = ["crowd", "silence", "full", "descriptors"];

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
  readonly #slow = new Set<string>();
  #numLost = 0;

  readonly #samples = this.#counter("training_samples_total", "Rows trained on.");
  readonly #tokens = this.#counter("training_tokens_total", "Tokens of the rows trained on.");
  readonly #steps = this.#counter("training_steps_total", "Optimizer updates made.");
  readonly #skippedSteps = this.#counter(
    "training_skipped_steps_total",
    "Steps without an update, because their gradient was not finite.",
  );
  readonly #rpcs = this.#counter("rpc_requests_total", "RPCs handled.", ["method", "code"]);
  readonly #workerFailures = this.#counter("worker_failures_total", "Workers that were lost.");
  readonly #requeued = this.#counter(
    "gradient_groups_requeued_total",
    "Gradient groups that were leased again.",
  );
  readonly #quarantined = this.#counter(
    "workers_quarantined_total",
    "Times that a worker was kept out of the run.",
  );
  readonly #corrupted = this.#counter(
    "workers_corrupted_total",
    "Times that a worker's weights were found to be others than it was sent.",
  );
  readonly #duplicated = this.#counter(
    "gradient_groups_duplicated_total",
    "Gradient groups leased to a second worker because the first one was slow.",
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
    "workers_device_seconds_total",
    "Seconds for which workers held their devices, those that are gone included; GPU hours are this over 3600.",
    ["device_type"],
  );
  readonly #refusedConnections = this.#counter(
    "refused_connections_total",
    "Connections that were closed for the sake of limits.",
    ["port", "reason"],
  );
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
  readonly #lossGap = this.#gauge(
    "evaluation_loss_gap",
    "Validation loss less the mean training loss since the evaluation before, nats per token.",
  );
  readonly #evaluationScore = this.#gauge(
    "evaluation_score_ratio",
    "Scores of a classifier or of preferences in the latest evaluation, 0 to 1.",
    ["score"],
  );
  /** Of the figures that are no shares: one each, by the metric's key. */
  readonly #evaluationFigures = new Map(
    allMetrics()
      .filter(({ isRatio }) => !isRatio)
      .map(({ key, help }) => [key, this.#gauge(`evaluation_${key.replace("/", "_")}`, help)]),
  );
  readonly #taskLoss = this.#gauge(
    "task_loss",
    "Loss of a task in the latest step with rows of it.",
    ["task"],
  );
  readonly #taskWeight = this.#gauge(
    "task_weight",
    "What a task's loss is multiplied by in the latest step.",
    ["task"],
  );
  readonly #generalLoss = this.#gauge(
    "general_loss",
    "Loss of the general validation rows in the latest evaluation of them, nats per token.",
  );
  readonly #forgottenLoss = this.#gauge(
    "forgotten_loss",
    "What the loss of the general validation rows rose by since before the first step, nats per token.",
  );
  readonly #trainingScore = this.#gauge(
    "training_score",
    "What the objective makes of the rows of the latest step, by name: rewards of preferences.",
    ["score"],
  );
  readonly #ewcPenalty = this.#gauge(
    "training_ewc_penalty",
    "EWC's penalty of the weights before the latest step, which the training loss does not have in it.",
  );
  readonly #ewcRatio = this.#gauge(
    "training_ewc_penalty_ratio",
    "EWC's penalty over the loss of the latest step.",
  );
  readonly #workers = this.#gauge("workers", "Workers by state.", ["state"]);
  readonly #slowWorkers = this.#gauge(
    "slow_workers",
    "Workers that take twice as long for a gradient group as the median one, or longer.",
  );
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
  readonly #checkpoints = new CheckpointMetrics(this.registry);

  constructor(bus: Pick<EventBus, "subscribe">) {
    addProcessMetrics(this.registry, "coordinator");
    this.#showStates();
    this.#lossScale.set(1);
    for (const port of connectionPorts) {
      for (const reason of refusalReasons) this.#refusedConnections.inc({ port, reason }, 0);
    }
    const shards = new ShardMetrics(this.registry);
    bus.subscribe((event) => {
      this.#observe(event);
      shards.observe(event);
    });
  }

  #observe(event: LockstepEvent): void {
    switch (event.type) {
      case "step.completed":
        this.#steps.inc();
        this.#samples.inc(event.numRows);
        this.#tokens.inc(event.numTokens);
        this.#loss.set(event.loss);
        for (const { name: task, weight, loss } of event.tasks ?? [wholeRun(event)]) {
          if (loss !== undefined) this.#taskLoss.set({ task }, loss);
          this.#taskWeight.set({ task }, weight);
        }
        this.#gradientNorm.set(event.gradientNorm);
        for (const [score, value] of Object.entries(event.metrics ?? {})) {
          this.#trainingScore.set({ score }, value);
        }
        this.#lossScale.set(event.lossScale ?? 1);
        this.#ewcPenalty.set(event.ewcPenalty ?? 0);
        this.#ewcRatio.set(ewcRatio(event));
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
        const general = event.general?.at(-1);
        if (general !== undefined) this.#showGeneral(general);
        break;
      }
      case "evaluation.completed":
        this.#showEvaluation(event);
        break;
      case "general.evaluated":
        this.#showGeneral(event);
        break;
      case "worker.joined":
        this.#setState(event.workerId, "idle");
        break;
      case "worker.state":
        this.#setState(event.workerId, event.state);
        break;
      case "worker.lost":
        this.#workerFailures.inc();
        this.#numLost += 1;
        this.#forget(event.workerId);
        break;
      case "worker.left":
        this.#forget(event.workerId);
        break;
      case "worker.telemetry": {
        const labels = { worker: event.workerId, device_type: event.deviceType };
        this.#utilization.set(labels, event.utilization);
        this.#memoryUsed.set(labels, event.memoryUsedBytes);
        this.#memoryTotal.set(labels, event.memoryTotalBytes);
        // The worker reports a total; a worker that registered again starts its total anew.
        const before = this.#deviceSeconds.get(event.workerId) ?? 0;
        const { deviceSeconds, deviceType } = event;
        this.#devices.inc(
          { device_type: deviceType },
          deviceSeconds >= before ? deviceSeconds - before : deviceSeconds,
        );
        this.#deviceSeconds.set(event.workerId, deviceSeconds);
        break;
      }
      case "worker.pace":
        if (event.isSlow) this.#slow.add(event.workerId);
        else this.#slow.delete(event.workerId);
        this.#slowWorkers.set(this.#slow.size);
        break;
      case "group.leased":
        if (event.isBackup === true) this.#duplicated.inc();
        break;
      case "group.requeued":
        this.#requeued.inc();
        break;
      case "worker.quarantined":
        this.#quarantined.inc();
        break;
      case "worker.corrupted":
        this.#corrupted.inc();
        break;
      case "group.diverged":
        this.#diverged.inc();
        break;
      case "push.refused":
        this.#refusedPushes.inc({ code: event.code }, 1 + event.numUntold);
        break;
      case "checkpoint.saved":
      case "checkpoint.failed":
        this.#checkpoints.observe(event);
        break;
      case "connections.refused":
        this.#refusedConnections.inc(
          { port: event.port, reason: event.reason },
          event.numConnections,
        );
        break;
      case "rpc.handled":
        this.#rpcs.inc({ method: event.method, code: event.code });
        this.#rpcDuration.observe({ method: event.method }, event.seconds);
        break;
      default:
        break;
    }
  }

  #showEvaluation({ loss, trainLoss, metrics }: RunResumed["evaluations"][number]): void {
    this.#evaluationLoss.set(loss);
    if (trainLoss !== undefined) this.#lossGap.set(loss - trainLoss);
    for (const [key, value] of Object.entries(metrics)) {
      const figure = this.#evaluationFigures.get(key);
      if (figure === undefined) this.#evaluationScore.set({ score: key }, value);
      else figure.set(value);
    }
  }

  #showGeneral(figure: GeneralLoss): void {
    this.#generalLoss.set(figure.loss);
    this.#forgottenLoss.set(forgottenOf(figure) ?? 0);
  }

  #setState(workerId: string, state: WorkerState): void {
    if (this.#states.get(workerId) === state) return;
    this.#states.set(workerId, state);
    this.#showStates();
  }

  /**
   * Nothing stays of a worker that is gone but its part of totals: a gauge that nobody sets any more would show its
   * last value for ever, and workers that come and go would leave a series each.
   */
  #forget(workerId: string): void {
    this.#states.delete(workerId);
    this.#deviceSeconds.delete(workerId);
    this.#slow.delete(workerId);
    this.#slowWorkers.set(this.#slow.size);
    this.#showStates();
    for (const deviceType of ["cpu", "gpu"]) {
      for (const gauge of [this.#utilization, this.#memoryUsed, this.#memoryTotal]) {
        gauge.remove(workerId, deviceType);
      }
    }
  }

  #showStates(): void {
    for (const state of workerStates) {
      const known = [...this.#states.values()].filter((value) => value === state).length;
      const count = state === "lost" ? this.#numLost : known;
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
