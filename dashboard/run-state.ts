import type { LockstepEvent, RunStarted, StepCompleted, WorkerTelemetry } from "#lib/core/events";

/** A figure that is not finite travels as its name: "NaN", "Infinity". */
export type TimedEvent = LockstepEvent & { readonly timeMs: number };

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface WorkerRow {
  readonly workerId: string;
  readonly device: string;
  readonly state: string;
  readonly work: string;
  readonly telemetry: WorkerTelemetry | undefined;
}

interface LogLine {
  readonly timeMs: number;
  readonly text: string;
  readonly isBad: boolean;
}

/** Points kept of a curve: more than a screen has columns. */
const maxPoints = 4_096;
const maxLines = 200;
const recentSteps = 20;

/** What the page shows: a fold over the stream of events. */
export class RunState {
  started: RunStarted | undefined;
  phase = "waiting";
  detail = "";
  lastStep: StepCompleted | undefined;
  readonly losses: Point[] = [];
  readonly tokensPerSecond: Point[] = [];
  readonly gradientNorms: Point[] = [];
  readonly evaluations: Point[] = [];
  readonly stepSeconds: number[] = [];
  readonly samples: {
    readonly step: number;
    readonly prompt: string;
    readonly text: string;
    readonly isChat: boolean;
  }[] = [];
  readonly workers = new Map<string, WorkerRow>();
  readonly lines: LogLine[] = [];

  #stepsBefore = 0;

  /** Steps made, by former processes of the run too. */
  get stepsMade(): number {
    return this.lastStep?.step ?? this.#stepsBefore;
  }

  apply(event: TimedEvent): void {
    const say = (text: string, isBad = false): void => {
      this.lines.unshift({ timeMs: event.timeMs, text, isBad });
      if (this.lines.length > maxLines) this.lines.pop();
    };
    switch (event.type) {
      case "run.started":
        this.started = event;
        break;
      case "run.resumed":
        this.#stepsBefore = event.step;
        for (const { step, loss, gradientNorm } of event.losses) {
          push(this.losses, step, loss);
          push(this.gradientNorms, step, gradientNorm);
        }
        for (const { step, loss } of event.evaluations) push(this.evaluations, step, loss);
        for (const { isChat = false, ...sample } of event.samples) {
          this.samples.push({ ...sample, isChat });
        }
        say(`goes on from ${event.directory}, after ${event.step} steps`);
        break;
      case "shard.lost":
        say(`shard ${event.shard} is lost: ${event.reason}`, true);
        break;
      case "shard.takenOver":
        say(`shard ${event.shard} is at ${event.address} now: ${event.reason}`, true);
        break;
      case "mirror.lost":
        say(`shard ${event.shard} has one copy only: ${event.reason}`, true);
        break;
      case "mirror.inPlace":
        say(`shard ${event.shard} has a mirror at ${event.address}`);
        break;
      case "shards.rolledBack":
        this.#forgetSteps();
        say(`all shards go back to step ${event.step}; ${event.numSteps} are made again`, true);
        break;
      case "phase.changed":
        this.phase = event.phase;
        this.detail = event.detail ?? "";
        break;
      case "worker.joined":
        this.#worker(event.workerId, { device: event.deviceKind, state: "idle", work: "" });
        say(`${event.workerId} joined`);
        break;
      case "worker.state":
        this.#worker(event.workerId, {
          state: event.state,
        });
        break;
      case "group.leased":
        this.#worker(event.workerId, {
          work: `${event.isMeasurement === true ? "round" : "step"} ${event.step + 1}, group ${event.group}`,
        });
        break;
      case "worker.telemetry":
        this.#worker(event.workerId, { telemetry: event });
        break;
      case "worker.lost":
        this.#worker(event.workerId, { state: "lost", work: "", telemetry: undefined });
        say(`${event.workerId} lost: ${event.reason}`, true);
        break;
      case "worker.left":
        this.workers.delete(event.workerId);
        say(`${event.workerId} left: ${event.reason}`);
        break;
      case "worker.quarantined":
        say(`${event.workerId} is kept out of the run: ${event.reason}`, true);
        break;
      case "worker.corrupted":
        say(`${event.workerId}: ${event.spaces.join(" and ")} weights changed in its memory`, true);
        break;
      case "worker.pace":
        say(`${event.workerId} is ${event.isSlow ? "slow" : "no longer slow"}`, event.isSlow);
        break;
      case "group.diverged":
        say(
          `${event.workerIds.join(" and ")} computed different bits of step ${event.step + 1}, group ${event.group}`,
          true,
        );
        break;
      case "push.refused":
        say(`refused bytes of ${event.workerId || "nobody"} at ${event.peer}: ${event.code}`, true);
        break;
      case "group.requeued":
        say(
          `${event.isMeasurement === true ? "round" : "step"} ${event.step + 1} group ${event.group} is leased again: ${event.reason}`,
        );
        break;
      case "step.completed":
        this.lastStep = event;
        push(this.losses, event.step, event.loss);
        push(this.tokensPerSecond, event.step, event.tokensPerSecond);
        push(this.gradientNorms, event.step, event.gradientNorm);
        if (!Number.isFinite(event.gradientNorm)) {
          say(`step ${event.step} made no update: its gradient is not finite`, true);
        }
        this.stepSeconds.push(event.stepSeconds);
        if (this.stepSeconds.length > recentSteps) this.stepSeconds.shift();
        break;
      case "evaluation.completed":
        push(this.evaluations, event.step, event.loss);
        say(
          [
            `validation at step ${event.step}: loss ${figure(event.loss)}`,
            ...(this.started?.objective.metrics ?? []).flatMap(({ key, label, digits }) => {
              const value = event.metrics[key];
              return value === undefined ? [] : [`${label} ${figure(value, digits)}`];
            }),
          ].join(", "),
        );
        break;
      case "fisher.measured":
        say(`the Fisher information of ${event.numRows} general rows is measured`);
        break;
      case "general.evaluated": {
        const { step, loss, before } = event;
        const forgotten =
          typeof loss === "number" && typeof before === "number"
            ? `, ${figure(before)} before: ${loss > before ? "+" : ""}${figure(loss - before)}`
            : "";
        say(`general loss at step ${step}: ${figure(loss)}${forgotten}`);
        break;
      }
      case "sample.generated":
        this.samples.push({
          ...{ step: event.step, prompt: event.prompt, text: event.text },
          isChat: event.isChat === true,
        });
        break;
      case "checkpoint.saved":
        say(`saved ${event.directory}`);
        break;
      case "checkpoint.failed":
        say(`step ${event.step} was not saved: ${event.message}`, true);
        break;
      case "run.completed":
        this.phase = event.outcome;
        this.detail = "";
        say(`${event.outcome} at step ${event.step}: ${event.directory}`);
        break;
      case "run.failed":
        this.phase = "failed";
        this.detail = event.code;
        say(`${event.code}: ${event.message}`, true);
        break;
      default:
        break;
    }
  }

  /** Seconds until the last step, by the pace of the latest ones. */
  secondsLeft(): number | undefined {
    if (this.lastStep === undefined || this.stepSeconds.length === 0) return undefined;
    const sum = this.stepSeconds.reduce((total, seconds) => total + seconds, 0);
    const remaining = this.lastStep.totalSteps - this.lastStep.step;
    return (remaining * sum) / this.stepSeconds.length;
  }

  /** The run goes back: what is left of its past is told anew. */
  #forgetSteps(): void {
    this.lastStep = undefined;
    this.#stepsBefore = 0;
    for (const curve of [this.losses, this.tokensPerSecond, this.gradientNorms, this.evaluations]) {
      curve.length = 0;
    }
    this.samples.length = 0;
  }

  #worker(workerId: string, change: Partial<WorkerRow>): void {
    const known = this.workers.get(workerId) ?? {
      workerId,
      device: "",
      state: "idle",
      work: "",
      telemetry: undefined,
    };
    this.workers.set(workerId, { ...known, ...change });
  }
}

/** Appends a point; of a long curve every second one goes. */
function push(points: Point[], x: number, y: unknown): void {
  if (typeof y !== "number") return;
  points.push({ x, y });
  if (points.length <= maxPoints) return;
  const kept = points.filter((_, index) => index % 2 === 0 || index === points.length - 1);
  points.splice(0, points.length, ...kept);
}

export function figure(value: number | string, digits = 4): string {
  return typeof value === "number" ? value.toFixed(digits) : value;
}

export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
