import { basename } from "node:path";
import { type ErrorCode, isLockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { checkpointPlace } from "./checkpoint-place.js";
import { openNewestWhole, type ResumePoint, takesNewest } from "./resume.js";
import type { StartedRun } from "./start.js";
import { whileAway } from "./while-away.js";

/** What a shard that is gone ends the run with, and one of whose copies nobody knows which is right. */
const shardErrors: readonly ErrorCode[] = ["E_SHARD_FAILED", "E_SHARD_LOST", "E_SHARD_DIVERGED"];
/** A checkpoint may turn out not to be whole as it is read. */
const isDamaged = (error: unknown): error is Error =>
  isLockstepError(error) && error.code === "E_CHECKPOINT_DAMAGED";
const isShardLost = (error: unknown): error is Error =>
  isLockstepError(error) && shardErrors.includes(error.code);

/** A run from one loss of a shard to the next. */
export interface TrainingLife {
  readonly numRollbacks: number;
  /** Whether the run begins again after an error that ends this. */
  readonly beginsAgainAfter: (error: unknown) => boolean;
  /** To be called when workers have been told that the run is over: after this step nobody makes one again. */
  readonly parted: (step: number) => void;
}

/** Numbers of rollbacks that an epoch has place for. */
const maxRollbacksOfClaim = 1_024;

/** Rises with each claim of the output directory, and with each rollback under one. */
export const epochOf = (claimEpoch: number, numRollbacks: number): number =>
  claimEpoch * maxRollbacksOfClaim + numRollbacks;

/**
 * Trains to the end. Where a shard is lost with what it kept, all of them begin again with what was saved; so do they
 * with a checkpoint before it where the one that they read turns out to be damaged.
 *
 * @param options.begunFrom what the run goes on from in the first place; it stays open
 * @param options.onLeft called when a life is over and another one follows, before that is looked for
 * @param options.onBack called before the run begins again; what it throws ends the run
 */
export async function trainWithRollbacks<Result>(options: {
  readonly run: StartedRun;
  readonly begunFrom: ResumePoint | undefined;
  readonly bus: InProcessEventBus;
  readonly train: (resume: ResumePoint | undefined, life: TrainingLife) => Promise<Result>;
  readonly onLeft: () => void;
  readonly onBack: (resume: ResumePoint | undefined) => void;
  /** Nobody waits any more for a store that is away. */
  readonly stop: AbortSignal;
}): Promise<Result> {
  const { begunFrom, train, onBack } = options;
  const rollbacks = new Rollbacks(options);
  let resume = begunFrom;
  let partedAt: number | undefined;
  const parted = (step: number): void => {
    partedAt = step;
  };
  const closeOwn = async (): Promise<void> => {
    if (resume !== begunFrom) await resume?.optimizer.close();
  };
  try {
    for (;;) {
      try {
        const { total: numRollbacks } = rollbacks;
        rollbacks.readFrom = resume;
        const beginsAgainAfter = (error: unknown): boolean => rollbacks.follow(error);
        return await train(resume, { numRollbacks, beginsAgainAfter, parted });
      } catch (error) {
        if (!rollbacks.follow(error)) throw error;
        options.onLeft();
        await closeOwn();
        const before = resume;
        resume = begunFrom;
        resume = isDamaged(error)
          ? await rollbacks.passOver(before, error)
          : await rollbacks.goBack(error);
        // Only a result can be made again without workers.
        if (partedAt !== undefined && resume?.state.step !== partedAt) throw error;
        onBack(resume);
      }
    }
  } finally {
    await closeOwn();
    rollbacks.close();
  }
}

/**
 * Goes back to what was saved where a shard is lost with what it kept, and no other process has it. A shard that is
 * lost again and again before anything new is saved ends the run.
 */
class Rollbacks {
  readonly #limit: number;
  readonly #bus: InProcessEventBus;
  readonly #unsubscribe: () => void;
  #inARow = 0;
  #total = 0;
  readonly #run: StartedRun;
  readonly #stop: AbortSignal;
  readonly #begunFrom: ResumePoint | undefined;
  /** What was saved before is not this life's. */
  readonly #savedBeforeMs: number;
  #step: number;
  #savedStep: number;
  /** What shards read now, where they read a checkpoint. */
  readFrom: ResumePoint | undefined;
  /** Checkpoints that turned out to be damaged. */
  readonly #damaged = new Set<string>();

  /** @param begunFrom what the run goes on from in the first place; it stays open until the run is over */
  constructor(options: {
    readonly run: StartedRun;
    readonly begunFrom: ResumePoint | undefined;
    readonly bus: InProcessEventBus;
    readonly stop: AbortSignal;
  }) {
    this.#run = options.run;
    this.#stop = options.stop;
    this.#begunFrom = options.begunFrom;
    this.#bus = options.bus;
    this.#limit = options.run.config.max_rollbacks;
    this.#savedBeforeMs = options.run.lastSave.atMs;
    this.#step = options.begunFrom?.state.step ?? 0;
    this.#savedStep = this.#step;
    this.#unsubscribe = options.bus.subscribe((event) => {
      // Where shards outlived a coordinator the run goes on later than at a checkpoint.
      if (event.type === "step.completed" || event.type === "run.resumed") this.#step = event.step;
      if (event.type !== "checkpoint.saved" || event.step <= this.#savedStep) return;
      this.#savedStep = event.step;
      this.#inARow = 0;
    });
  }

  /** So far. */
  get total(): number {
    return this.#total;
  }

  /** Whether the run begins again after an error. */
  follow(error: unknown): boolean {
    if (this.#total + 1 >= maxRollbacksOfClaim) return false;
    if (isDamaged(error)) return this.readFrom !== undefined && !this.#isNamed(this.readFrom);
    return isShardLost(error) && this.#inARow < this.#limit;
  }

  /** Whether a person asked for this checkpoint and no other. */
  #isNamed({ directory }: ResumePoint): boolean {
    const { config } = this.#run;
    return directory === this.#begunFrom?.directory && !takesNewest(config);
  }

  /**
   * The checkpoint that shards read is damaged.
   *
   * @returns the one before it, or where the run began
   * @throws E_CHECKPOINT_DAMAGED where there is none
   */
  async passOver(damaged: ResumePoint | undefined, error: Error): Promise<ResumePoint | undefined> {
    this.#total += 1;
    if (damaged !== undefined) this.#damaged.add(damaged.directory);
    const begunFrom = this.#begunFrom;
    const isBegunWhole = begunFrom === undefined || !this.#damaged.has(begunFrom.directory);
    const note = (text: string): void => this.#bus.publish({ type: "note", text });
    const { save_retry_ms: limitMs } = this.#run.config;
    const wait = { limitMs, stop: this.#stop, note };
    const sinceMs = isBegunWhole ? this.#savedBeforeMs : 0;
    const found = await whileAway(() => this.#newest(note, sinceMs), wait);
    if (found === undefined && !isBegunWhole) throw error;
    const point = found ?? begunFrom;
    const where = point === undefined ? "the beginning of the run" : basename(point.directory);
    note(`warning: passed over: ${error.message} The run goes on from ${where}.`);
    this.#step = point?.state.step ?? 0;
    return point;
  }

  /** @returns where the run goes on: at its newest checkpoint that is whole, or where it began */
  async goBack(error: unknown): Promise<ResumePoint | undefined> {
    this.#inARow += 1;
    this.#total += 1;
    const note = (text: string): void => this.#bus.publish({ type: "note", text });
    const reason = error instanceof Error ? error.message : String(error);
    const { save_retry_ms: limitMs } = this.#run.config;
    const wait = { limitMs, stop: this.#stop, note };
    const point =
      (await whileAway(() => this.#newest(note, this.#savedBeforeMs), wait)) ?? this.#begunFrom;
    const step = point?.state.step ?? 0;
    const numSteps = Math.max(0, this.#step - step);
    this.#step = step;
    const where =
      point === undefined
        ? "the beginning of the run, which has saved no checkpoint"
        : `${basename(point.directory)}`;
    note(
      `warning: ${reason} All shards go back to ${where}; ${counted(numSteps, "step")} ${numSteps === 1 ? "is" : "are"} made again (${this.#inARow} of ${this.#limit} times in a row, max_rollbacks).`,
    );
    this.#bus.publish({
      ...{ type: "shards.rolledBack", step, numSteps },
      ...(point === undefined ? {} : { directory: point.directory }),
    });
    return point;
  }

  close(): void {
    this.#unsubscribe();
  }

  /** @param sinceMs checkpoints that were saved before are not looked at */
  async #newest(note: (text: string) => void, sinceMs: number): Promise<ResumePoint | undefined> {
    const { config, record } = this.#run;
    const own = (await (await checkpointPlace(config)).list()).filter(
      (saved) =>
        saved.isOurs &&
        saved.record?.runId === record.runId &&
        saved.record.savedAtMs > sinceMs &&
        !this.#damaged.has(saved.directory),
    );
    try {
      const { point, lines } = await openNewestWhole(
        config.checkpoint_store ?? config.output_dir,
        own,
        config,
        {
          readsAll: false,
        },
      );
      for (const line of lines) note(`warning: ${line}`);
      return point;
    } catch (error) {
      if (!isLockstepError(error) || error.code !== "E_NO_CHECKPOINT") throw error;
      note(`warning: ${error.message}`);
      return undefined;
    }
  }
}
