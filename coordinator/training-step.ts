import type { Batch } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { EvaluatedBatch, LossSum } from "#lib/core/job";
import type { Task, TaskResult } from "#lib/wire/control-messages";
import type { EventBus } from "#lib/wire/event-bus";
import type { Lease, LeaseTable } from "./leases.js";
import { addLossSums, StepRound } from "./rounds.js";
import type { Work } from "./task-queue.js";

interface TrainingStepOptions {
  readonly step: number;
  /** Parameter version that the gradients are of. */
  readonly version: number;
  /** What the whole step's loss is divided by. */
  readonly weight: number;
  /** What it is multiplied by for backward. */
  readonly lossScale: number;
  readonly numGroups: number;
  readonly numShards: number;
  readonly microBatches: (group: number) => readonly Batch[];
  readonly leases: LeaseTable;
  readonly bus: EventBus;
  readonly now: () => number;
}

/** The leased part of a step: ends when every group's sums and bytes are here. */
export class TrainingStep implements Work {
  readonly leases: LeaseTable;
  /** Settles when the step is complete. */
  readonly completed: Promise<void>;
  readonly #options: TrainingStepOptions;
  readonly #round: StepRound;
  #resolve: () => void = () => {};

  constructor(options: TrainingStepOptions) {
    this.#options = options;
    this.leases = options.leases;
    this.#round = new StepRound(options);
    this.completed = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  taskFor(lease: Lease): Task {
    const { step, version, weight, lossScale, microBatches } = this.#options;
    return {
      kind: "train",
      lease: lease.id,
      step,
      group: lease.item,
      version,
      gradScale: lossScale / weight,
      batches: microBatches(lease.item),
    };
  }

  accept(lease: Lease, result: TaskResult): void {
    const sum = addLossSums(lossesOf(result));
    this.#round.groupReported(lease.item, sum);
    this.#options.bus.publish({
      type: "group.completed",
      step: this.#options.step,
      group: lease.item,
      workerId: lease.workerId,
      seconds: (this.#options.now() - lease.grantedMs) / 1000,
      weight: sum.weight,
    });
    this.#check();
  }

  /** A shard has all bytes of a group. */
  groupArrived(shard: number, step: number, group: number): void {
    if (step !== this.#options.step) return;
    this.#round.groupArrived(shard, group);
    this.#check();
  }

  lossSum(): LossSum {
    return this.#round.lossSum();
  }

  onGranted(lease: Lease): void {
    const { bus, step } = this.#options;
    const { item: group, workerId, attempt } = lease;
    bus.publish({ type: "group.leased", step, group, workerId, attempt });
  }

  onRequeued(lease: Lease, reason: string): void {
    const { bus, step } = this.#options;
    bus.publish({
      type: "group.requeued",
      step,
      group: lease.item,
      workerId: lease.workerId,
      reason,
    });
  }

  #check(): void {
    if (this.#round.complete) this.#resolve();
  }
}

export function lossesOf(result: TaskResult): readonly EvaluatedBatch[] {
  if (result.kind === "losses") return result.sums;
  throw new LockstepError("E_MESSAGE_INVALID", {
    message: "CompleteTaskRequest",
    field: "result",
    reason: "holds tokens where loss sums were expected",
  });
}
