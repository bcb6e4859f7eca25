import type { LockstepEvent } from "#lib/core/events";
import type { EventBus } from "#lib/wire/event-bus";

/** An event and when it happened, milliseconds since 1970. */
export interface TimedEvent {
  readonly timeMs: number;
  readonly event: LockstepEvent;
}

/** Of a run that goes back: as `run.resumed` tells of them, or they are told again. */
const happensAgain: ReadonlySet<LockstepEvent["type"]> = new Set([
  "evaluation.completed",
  "fisher.measured",
  "general.evaluated",
  "sample.generated",
]);

/** Steps kept for a page that opens late; beyond it every second one is dropped, then again. */
const maxKeptSteps = 4_096;
/** Losses, requeues, checkpoints, samples: the latest of them. */
const maxKeptOthers = 512;

/** Of which the latest one is kept of each member, until it is gone. */
const ofMembers = [
  "worker.joined",
  "worker.state",
  "worker.telemetry",
  "worker.pace",
  "group.leased",
] as const;

/** What a page needs that opens in the middle of a run: a bounded account of the events so far. */
export class EventHistory {
  readonly #nowMs: () => number;
  readonly #unsubscribe: () => void;
  #steps: TimedEvent[] = [];
  #stride = 1;
  #others: TimedEvent[] = [];
  /** The latest event of a kind that replaces its predecessor, by kind and worker. */
  readonly #latest = new Map<string, TimedEvent>();

  constructor(bus: Pick<EventBus, "subscribe">, nowMs: () => number) {
    this.#nowMs = nowMs;
    this.#unsubscribe = bus.subscribe((event) => this.#keep(event));
  }

  /** In the order in which they happened. */
  events(): TimedEvent[] {
    const latestStep = this.#latest.get("step.completed");
    const steps =
      latestStep === undefined || this.#steps.at(-1) === latestStep
        ? this.#steps
        : [...this.#steps, latestStep];
    const others = [...this.#latest].filter(([key]) => key !== "step.completed");
    return [...others.map(([, timed]) => timed), ...this.#others, ...steps].sort(
      (a, b) => a.timeMs - b.timeMs,
    );
  }

  close(): void {
    this.#unsubscribe();
  }

  #keep(event: LockstepEvent): void {
    const timed = { timeMs: this.#nowMs(), event };
    switch (event.type) {
      case "run.started":
      case "run.resumed":
      case "phase.changed":
      case "run.completed":
      case "run.failed":
        this.#latest.set(event.type, timed);
        break;
      case "worker.joined":
      case "worker.state":
      case "worker.telemetry":
      case "group.leased":
      case "worker.pace":
        this.#latest.set(`${event.type} ${event.workerId}`, timed);
        break;
      case "worker.lost":
      case "worker.left":
        for (const type of ofMembers) {
          this.#latest.delete(`${type} ${event.workerId}`);
        }
        this.#keepOther(timed);
        break;
      case "step.completed":
        this.#latest.set(event.type, timed);
        if (event.step % this.#stride === 0 || event.step === 1) this.#steps.push(timed);
        if (this.#steps.length > maxKeptSteps) {
          this.#stride *= 2;
          this.#steps = this.#steps.filter((_, index) => index % 2 === 0);
        }
        break;
      case "shards.rolledBack":
        // What was before is told once more, or happens again.
        this.#steps = [];
        for (const type of ["step.completed", "run.resumed"]) this.#latest.delete(type);
        this.#others = this.#others.filter((other) => !happensAgain.has(other.event.type));
        this.#keepOther(timed);
        break;
      case "shard.lost":
      case "shard.takenOver":
      case "mirror.lost":
      case "mirror.inPlace":
      case "evaluation.completed":
      case "fisher.measured":
      case "general.evaluated":
      case "sample.generated":
      case "checkpoint.saved":
      case "checkpoint.failed":
      case "group.requeued":
      case "worker.quarantined":
      case "worker.corrupted":
      case "group.diverged":
      case "push.refused":
        this.#keepOther(timed);
        break;
      case "note":
      case "log.lines":
      case "mirror.compared":
      case "events.dropped":
      case "group.completed":
      case "bytes.transferred":
      case "connections.refused":
      case "pushes.waiting":
      case "rpc.handled":
      case "history.logged":
        break;
    }
  }

  #keepOther(timed: TimedEvent): void {
    this.#others.push(timed);
    if (this.#others.length > maxKeptOthers) this.#others = this.#others.slice(-maxKeptOthers);
  }
}
