import { type ErrorCode, isLockstepError } from "#lib/core/errors/index";
import type { StepUpdate } from "#lib/optim/index";
import { Checkpointer } from "./checkpointer.js";
import { CopyChoice } from "./copy-choice.js";
import { isDue } from "./due.js";
import type { CheckpointState, CoordinatorOptions } from "./options.js";
import type { ShardGroup } from "./shards.js";

/** Errors of workers: the shards and what they hold are whole. */
const ofWorkers: ErrorCode[] = ["E_WORKERS_EXHAUSTED", "E_WORKER_FAILED", "E_GROUP_DIVERGED"];

interface RunSavesParts {
  readonly options: CoordinatorOptions;
  readonly shards: ShardGroup;
  readonly updates: StepUpdate;
  /** Of the step that was completed last. */
  readonly state: () => CheckpointState;
  /** Of a save in the background. */
  readonly onError: (error: unknown) => void;
}

/**
 * When a run is saved: after steps that are due, that somebody asked for or that are the best, at its end, and before
 * it fails. A step is the number of steps completed. Without checkpointing nothing is.
 */
export class RunSaves {
  readonly #parts: RunSavesParts;
  readonly #checkpointer: Checkpointer | undefined;
  readonly #copies: CopyChoice;
  #savedStep: number;
  #isRequested = false;

  constructor(parts: RunSavesParts) {
    this.#parts = parts;
    const { checkpointing, bus, resume, recovery } = parts.options;
    this.#savedStep = recovery?.state.savedStep ?? resume?.state.step ?? 0;
    this.#isRequested = recovery?.savesAtOnce === true;
    this.#copies = new CopyChoice(checkpointing?.copyLimitBytes);
    bus.subscribe((event) => {
      if (event.type === "step.completed") this.#copies.stepCompleted(event.stepSeconds);
      if (event.type === "checkpoint.saved") this.#copies.saved(event.bytes, event.seconds);
    });
    this.#checkpointer =
      checkpointing &&
      new Checkpointer({
        ...{ checkpointing, bus, onError: parts.onError },
        onGivenUp: () => void this.request(),
      });
  }

  /** A save after the step in progress, or at the end. @returns false where that was asked for already */
  request(): boolean {
    const isNew = !this.#isRequested;
    this.#isRequested = true;
    return isNew;
  }

  /** Of the last save that has begun; of the checkpoint that the run goes on from before that. */
  get savedStep(): number {
    return this.#savedStep;
  }

  /**
   * @param what whether its evaluation is the best so far, and whether the run ends with it
   * @returns whether a save has begun
   */
  async afterStep(
    step: number,
    { isBest, isLast }: { readonly isBest: boolean; readonly isLast: boolean },
  ): Promise<boolean> {
    const whenBest = this.#parts.options.checkpointing?.whenBest === true;
    const isWanted = this.#isRequested || (isBest && whenBest) || this.#isDue(step, isLast);
    if (!isWanted || this.#checkpointer === undefined || this.#savedStep === step) return false;
    await this.#save(step);
    return true;
  }

  /** What was asked for while no step is in progress. */
  async betweenSteps(step: number): Promise<void> {
    if (this.#isRequested && step > 0 && this.#savedStep !== step) await this.#save(step);
    this.#isRequested = false;
  }

  /** Begins the last save where it is wanted: one that goes on later always is. */
  async atEnd(step: number, isInterrupted: boolean): Promise<void> {
    // A stop in the evaluation after the last step leaves the end to be saved, too.
    const isWanted = isInterrupted || this.#isRequested || this.#isDue(step, true);
    if (isWanted && this.#savedStep !== step) await this.#save(step);
  }

  /**
   * Workers that fail for good take no weights with them: what was trained since the last save is kept. Resolves when
   * nothing is being written any more.
   *
   * @param isUpdating in the middle of an update one shard may be a version ahead of another, and nothing is begun
   */
  async beforeFailing(error: unknown, step: number, isUpdating: boolean): Promise<void> {
    const isWorkers = isLockstepError(error) && ofWorkers.includes(error.code);
    // An error here adds nothing to the run's.
    if (isWorkers && !isUpdating && step > this.#savedStep) await this.#begin().catch(() => {});
    // One that has begun, or is tried again.
    await this.settled();
  }

  /** Resolves when nothing is being written; what failed has been told to `onError`. */
  async settled(): Promise<void> {
    await this.#checkpointer?.settled();
  }

  #isDue(step: number, isLast: boolean): boolean {
    const { everySteps, atEnd } = this.#parts.options.checkpointing ?? {};
    return isDue(everySteps, step) || (isLast && atEnd === true);
  }

  async #save(step: number): Promise<void> {
    this.#savedStep = step;
    this.#isRequested = false;
    await this.#begin();
  }

  async #begin(): Promise<void> {
    const { shards, state, updates } = this.#parts;
    const hold: Parameters<Checkpointer["begin"]>[0] = async (into) =>
      shards.hold(this.#copies.isCopied, into);
    const { whenBest } = this.#parts.options.checkpointing ?? {};
    const now = state();
    const isKept = whenBest === true && now.best?.step === now.step;
    await this.#checkpointer?.begin(hold, now, updates.tensorStates, isKept);
  }
}
