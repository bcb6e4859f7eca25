import type { Batch } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import { type EvaluatedBatch, jobOfTask, type LossSum, type TaskedJob } from "#lib/core/job";
import type { Metrics } from "#lib/core/events";
import { objectiveOf } from "#lib/objectives/index";
import { type ScoredBatch, scoresTraining, trainingScores } from "#lib/objectives/training-scores";
import type { Task, TaskResult } from "#lib/wire/control-messages";
import type { EventBus } from "#lib/wire/event-bus";
import { ComparedWork, type Jury } from "./compared-work.js";
import type { Lease, LeaseTable } from "./leases.js";
import { addLossSums } from "./loss-sums.js";
import type { ArrivedGroup } from "#lib/wire/reducer-messages";
import type { ShardGroup } from "./shards.js";
import type { Work } from "./task-queue.js";

/** The losses of a batch, its task, and what was said of its rows. */
interface TaskSum extends EvaluatedBatch {
  readonly task: number | undefined;
}

interface TrainingStepOptions {
  readonly step: number;
  /** Parameter version that the gradients are of. */
  readonly version: number;
  /** What the loss sum of a batch of each task is multiplied by for backward. */
  readonly gradScales: readonly number[];
  /** Whether it sums squared gradients, before training. @default false */
  readonly isMeasurement?: boolean;
  /** Whether workers' weights are compared before they send a group. @default false */
  readonly isFingerprinted?: boolean;
  readonly numGroups: number;
  /** What is learnt of a batch. */
  readonly job: TaskedJob;
  readonly microBatches: (group: number) => readonly Batch[];
  readonly newLeases: () => LeaseTable;
  /** Within which the bytes of a group must have come that a worker reported. */
  readonly bytesAfterReportMs: number;
  readonly shards: Pick<ShardGroup, "count" | "changeFence" | "restartStep">;
  readonly jury: Jury;
  readonly bus: EventBus;
  readonly now: () => number;
  /** There is something to do again for those who wait. */
  readonly onReopened: () => void;
}

/**
 * The leased part of a step: ends when every group's sums and bytes are here, and where several workers computed
 * a group, when they agree. Where the shards keep bytes that others outvoted, they forget all of the step, and
 * every group is sent anew.
 */
export class TrainingStep implements Work {
  readonly #options: TrainingStepOptions;
  readonly #results: ComparedWork;
  readonly #granted = new Map<number, Lease>();
  /** Of each report, by lease: the sums of its batches, each with its task. */
  readonly #reported = new Map<number, readonly TaskSum[]>();
  readonly #published = new Set<number>();
  #leases: LeaseTable;
  #isRestarting = false;
  #isConfirmed = false;
  #completed: Promise<void>;
  #resolve: () => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #isOver = false;

  constructor(options: TrainingStepOptions) {
    this.#options = options;
    this.#leases = options.newLeases();
    this.#results = new ComparedWork({
      numItems: options.numGroups,
      numShards: options.shards.count,
      jury: options.jury,
      what: (group) => ({ step: options.step + 1, group }),
    });
    this.#results.setWanted(this.#leases);
    this.#completed = this.#begin();
  }

  /** As the shards number it. */
  get step(): number {
    return this.#options.step;
  }

  get kind(): string {
    return this.#options.isMeasurement === true ? "measurement" : "group";
  }

  get #measurement(): { readonly isMeasurement?: true } {
    return this.#options.isMeasurement === true ? { isMeasurement: true } : {};
  }

  get leases(): LeaseTable {
    return this.#leases;
  }

  /** Settles when the step is complete. @throws E_GROUP_DIVERGED */
  get completed(): Promise<void> {
    return this.#completed;
  }

  mayTake(group: number, workerId: string): boolean {
    return !this.#isRestarting && this.#results.mayTake(group, workerId, this.#leases);
  }

  taskFor(lease: Lease): Task {
    const { step, version, gradScales, microBatches } = this.#options;
    const batches = microBatches(lease.item);
    return {
      kind: "train",
      lease: lease.id,
      step,
      group: lease.item,
      version,
      ...(this.#options.isMeasurement === true
        ? // Squares are of the log-likelihood itself.
          { squares: true, gradScales: batches.map(() => 1) }
        : { gradScales: batches.map(({ task = 0 }) => gradScales[task] as number) }),
      ...(this.#options.isFingerprinted === true ? { isFingerprinted: true } : {}),
      batches,
    };
  }

  /** @throws E_TOKEN_COUNT for sums of other rows than the group's, E_MESSAGE_INVALID */
  accept(lease: Lease, result: TaskResult): void {
    const losses = lossesOf(result);
    const sums = this.#checkWeights(lease, losses);
    this.#checkScores(lease, sums);
    this.#reported.set(lease.id, sums);
    const key = losses
      .map(({ lossSum, weight, outputs = [] }) => [`${lossSum}/${weight}`, ...outputs].join(":"))
      .join(" ");
    const { item: group, workerId } = lease;
    this.#results.of(group).reported(lease.id, workerId, addLossSums(losses), key);
    // What was reported has been sent: whose bytes do not come has lost them.
    this.#leases.reported(lease.id, this.#options.bytesAfterReportMs);
    this.#look(lease);
  }

  /** A shard has all bytes of a lease's group. */
  groupArrived(shard: number, { step, group, lease: id, digest }: ArrivedGroup): void {
    const lease = this.#granted.get(id);
    if (this.#isOver || step !== this.#options.step || lease?.item !== group) return;
    this.#options.jury.onArrived(lease.workerId);
    this.#results.of(group).arrived(id, lease.workerId, shard, digest);
    this.#look(lease);
  }

  /**
   * A gradient that is not finite is computed by other workers too, where there are some.
   * @returns false where that was done already, or cannot be
   */
  async confirm(): Promise<boolean> {
    const { present } = this.#options.jury;
    if (this.#isConfirmed || present().length < 2) return false;
    this.#isConfirmed = true;
    for (let group = 0; group < this.#options.numGroups; group++) {
      this.#results.of(group).requireSecond();
    }
    this.#completed = this.#begin();
    await this.#restart();
    return true;
  }

  /** A shard has lost what had come of the step: all of it is sent again. */
  groupsLost(): void {
    if (this.#isOver || this.#isRestarting) return;
    this.#restart().catch((error: unknown) => this.#reject(error));
  }

  /** The same where the step was complete: it is to be waited for again. */
  async beginAgain(): Promise<void> {
    this.#completed = this.#begin();
    await this.#restart();
  }

  /** What the groups came to, in order: the sums of each one's batches. @throws RangeError while one is open */
  sums(): readonly (readonly TaskSum[])[] {
    return this.#results.verdicts().map((verdict, group) => {
      const sums = verdict.kind === "agreed" ? this.#reported.get(verdict.lease) : undefined;
      if (sums === undefined) throw new RangeError(`Group ${group} is open`);
      return sums;
    });
  }

  /** What objectives make of the step's rows. @throws RangeError while a group is open */
  scores(): Metrics | undefined {
    return trainingScores(
      this.#options.job,
      this.sums().flatMap((sums, group) => this.#scored(group, sums)),
    );
  }

  async onGranted(lease: Lease): Promise<void> {
    const { bus, step, shards, jury } = this.#options;
    const { id, item: group, workerId, attempt, isBackup } = lease;
    this.#granted.set(id, lease);
    bus.publish({
      type: "group.leased",
      ...{ step, group, workerId, attempt },
      ...(isBackup === true ? { isBackup } : {}),
      ...this.#measurement,
    });
    const isVerified = jury.isVerified(group);
    await shards.changeFence({ kind: "grant", lease: { id, workerId, step, group, isVerified } });
  }

  onReleased(leases: readonly Lease[]): void {
    const ids = leases.map(({ id }) => id);
    // A shard that is gone has ended the run already.
    this.#options.shards.changeFence({ kind: "revoke", leases: ids }).catch(() => {});
    for (const lease of leases) {
      if (!this.#isOver && this.#results.of(lease.item).forgetReport(lease.id)) this.#look(lease);
    }
  }

  onOverdue({ item: group, workerId, isReported }: Lease): void {
    if (isReported) {
      const { step } = this.#options;
      this.#options.jury.onBroken(
        workerId,
        `it reported group ${group} of ${this.#options.isMeasurement === true ? "round" : "step"} ${step + 1}, whose bytes did not come`,
      );
    }
  }

  onRequeued(lease: Lease, reason: string): void {
    const { bus, step } = this.#options;
    const { item: group, workerId } = lease;
    bus.publish({ type: "group.requeued", step, group, workerId, reason, ...this.#measurement });
  }

  /** Members came or went: whoever is missing now is not waited for. */
  membersChanged(): void {
    try {
      for (let group = 0; group < this.#options.numGroups; group++) {
        if (!this.#isOver) this.#results.judge(group, this.#leases);
      }
    } catch (error) {
      this.#reject(error);
    }
  }

  #begin(): Promise<void> {
    this.#isOver = false;
    const completed = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever waits sees it; the step may be given up before.
    completed.catch(() => {});
    return completed;
  }

  #look(lease: Lease): void {
    const { item: group } = lease;
    if (this.#results.of(group).isComplete(lease.id)) {
      this.#leases.finish(lease.id);
      this.#options.jury.onResult(lease.workerId);
    }
    try {
      const verdict = this.#results.judge(group, this.#leases);
      if (verdict.kind === "open") {
        this.#options.onReopened();
        return;
      }
      const agreed = this.#granted.get(verdict.lease) ?? lease;
      if (verdict.bytes !== "missing") this.#publish(group, agreed, verdict.sum);
      this.#check();
    } catch (error) {
      this.#reject(error);
    }
  }

  #publish(group: number, lease: Lease, { weight }: LossSum): void {
    if (this.#published.has(group)) return;
    this.#published.add(group);
    const seconds = (this.#options.now() - lease.grantedMs) / 1000;
    const { bus, step } = this.#options;
    bus.publish({
      type: "group.completed",
      step,
      group,
      workerId: lease.workerId,
      seconds,
      weight,
      ...this.#measurement,
    });
  }

  #check(): void {
    if (this.#isRestarting || this.#isOver) return;
    const bytes = this.#results
      .verdicts()
      .map((verdict) => (verdict.kind === "agreed" ? verdict.bytes : "missing"));
    if (bytes.includes("missing")) return;
    if (bytes.includes("other")) {
      this.#restart().catch((error: unknown) => this.#reject(error));
      return;
    }
    this.#isOver = true;
    this.#resolve();
  }

  /** The shards forget what they keep; what is known of the groups stays. */
  async #restart(): Promise<void> {
    const { shards, step, newLeases, numGroups, onReopened } = this.#options;
    this.#isRestarting = true;
    this.#leases = newLeases();
    await shards.restartStep(step);
    this.#granted.clear();
    for (let group = 0; group < numGroups; group++) this.#results.of(group).restart();
    this.#results.setWanted(this.#leases);
    this.#isRestarting = false;
    onReopened();
  }

  /** @returns the sums with the tasks of their batches */
  #checkWeights(
    { workerId, item: group }: Lease,
    losses: readonly EvaluatedBatch[],
  ): readonly TaskSum[] {
    const { microBatches, job, step } = this.#options;
    const batches = microBatches(group);
    const expected = batches.map(({ fields, task }) => {
      const { objective } = jobOfTask(job, task);
      return objectiveOf(objective.kind).weightOf(fields, objective);
    });
    const isSame =
      losses.length === expected.length &&
      losses.every(({ weight }, index) => weight === expected[index]);
    if (isSame) return losses.map((sum, index) => ({ ...sum, task: batches[index]?.task }));
    const sum = (weights: readonly number[]): number => weights.reduce((all, one) => all + one, 0);
    throw new LockstepError("E_TOKEN_COUNT", {
      ...{ worker: workerId, step: step + 1, group, expected: sum(expected) },
      got: sum(losses.map(({ weight }) => weight)),
    });
  }

  /** @throws E_MESSAGE_INVALID for outputs that no model of the job has */
  #checkScores({ item: group }: Lease, sums: readonly TaskSum[]): void {
    try {
      trainingScores(this.#options.job, this.#scored(group, sums));
    } catch (cause) {
      if (cause instanceof RangeError) throw invalidResult(`holds ${cause.message}`);
      throw cause;
    }
  }

  #scored(group: number, sums: readonly TaskSum[]): ScoredBatch[] {
    if (!scoresTraining(this.#options.job)) return [];
    return this.#options.microBatches(group).map((batch, index) => {
      const { outputs } = sums[index] ?? {};
      return { batch, ...(outputs === undefined ? {} : { outputs }) };
    });
  }
}

/** The error for what a worker cannot have computed. */
export const invalidResult = (reason: string): LockstepError =>
  new LockstepError("E_MESSAGE_INVALID", {
    message: "CompleteTaskRequest",
    field: "result",
    reason,
  });

export function lossesOf(result: TaskResult): readonly EvaluatedBatch[] {
  if (result.kind === "losses") return result.sums;
  throw invalidResult("holds tokens where loss sums were expected");
}
