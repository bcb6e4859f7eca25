import { awakeMs } from "#lib/core/awake-clock";
import type { TensorStates } from "#lib/core/shard-arrays";
import type { StepCompleted } from "#lib/core/events";
import { StepUpdate } from "#lib/optim/index";
import type { Court } from "./court.js";
import { isDue } from "./due.js";
import { EvaluationRun } from "./evaluation-run.js";
import { measureFisher } from "./fisher-run.js";
import { firstLeaseId, LeaseTable } from "./leases.js";
import { defaultBytesAfterReportMs, defaultLeaseTimeoutMs } from "./limits.js";
import type { CheckpointState, CoordinatorOptions, RunOutcome } from "./options.js";
import { makeStep } from "./made-step.js";
import { Quorum } from "./quorum.js";
import { RunHistory } from "./run-history.js";
import { RunPhases } from "./run-phases.js";
import { RunSaves } from "./run-saves.js";
import type { RunJournal } from "./run-journal.js";
import type { AgreedStep, FisherProgress, RunState } from "./run-state.js";
import type { ShardGroup } from "./shards.js";
import type { TaskQueue, Work } from "./task-queue.js";
import { TrainingStep } from "./training-step.js";
import { TransferMeter } from "./transfer-meter.js";

/**
 * The sequence of the run: evaluate, then for each step lease its groups, wait for all of them on
 * all shards, reduce, clip, apply, publish; evaluate and save in between.
 */
export class TrainingRun {
  readonly #options: CoordinatorOptions;
  readonly #queue: TaskQueue;
  readonly #shards: ShardGroup;
  readonly #court: Court;
  readonly #saves: RunSaves;
  readonly #history: RunHistory;
  readonly #evaluation: EvaluationRun;
  readonly #transfers: TransferMeter;
  readonly #failure: Promise<never>;
  /** Ends the run with this error, wherever it is. */
  fail: (error: unknown) => void = () => {};
  /** Rejects with StoppedEarly. */
  readonly #stopped: Promise<never>;
  #stop: () => void = () => {};
  #stopRequested = false;
  #nextLeaseId = firstLeaseId();
  /** Steps completed. */
  #step: number;
  /** Its updates made are the version that is published. */
  readonly #updates: StepUpdate;
  #hasEnded = false;
  readonly #phases: RunPhases;
  readonly #quorum: Quorum;
  #isUpdating = false;
  #current: TrainingStep | undefined;
  /** What shards may have begun or done of the next step, for a coordinator that died. */
  #leftOpen: { readonly agreed?: AgreedStep } | undefined;
  #fisher: FisherProgress;
  readonly #deviceKind: () => string | undefined;

  constructor(parts: {
    readonly options: CoordinatorOptions;
    readonly queue: TaskQueue;
    readonly shards: ShardGroup;
    readonly court: Court;
    /** Of the devices that the run computes on. */
    readonly deviceKind: () => string | undefined;
    /** Called at once with what ends the run, wherever it is. */
    readonly onFailure: (error: unknown) => void;
  }) {
    this.#options = parts.options;
    this.#deviceKind = parts.deviceKind;
    this.#queue = parts.queue;
    this.#shards = parts.shards;
    this.#court = parts.court;
    this.#phases = new RunPhases(parts.options.bus);
    this.#quorum = new Quorum(parts.options.minWorkers ?? 1, this.#phases);
    const { bus, resume, recovery } = parts.options;
    this.#failure = new Promise<never>((_resolve, reject) => {
      this.fail = reject;
    });
    this.#stopped = new Promise<never>((_resolve, reject) => {
      this.#stop = () => reject(new StoppedEarly());
    });
    // Whoever waits for the run sees these; nobody may be waiting yet.
    this.#failure.catch(parts.onFailure);
    this.#stopped.catch(() => {});
    this.#step = resume?.state.step ?? 0;
    const { job, updates } = parts.options;
    this.#updates = new StepUpdate(job.layout, updates, {
      ...resume?.state,
      skipped: recovery?.state.skipped,
    });
    this.#leftOpen = recovery && (recovery.agreed ? { agreed: recovery.agreed } : {});
    this.#fisher = recovery?.state.fisher ?? { numRounds: 0, isDone: this.#step > 0 };
    this.#history = new RunHistory(parts.options);
    this.#evaluation = new EvaluationRun({
      options: parts.options,
      court: parts.court,
      history: this.#history,
      phases: this.#phases,
      updates: this.#updates,
      newLeases: (numItems) => this.#leaseTable(numItems),
      carryOut: async (work, completed) => {
        // Whoever stopped the last step does not wait for what comes after it: the next life does that.
        if (this.#stopRequested) this.#stop();
        await this.#enoughWorkers();
        return this.#work(work, completed);
      },
      kept: () => this.#journal(),
    });
    this.#saves = new RunSaves({
      options: parts.options,
      shards: parts.shards,
      updates: this.#updates,
      state: () => this.#state(),
      onError: (error) => this.fail(error),
    });
    this.#transfers = new TransferMeter(bus, this.#shards);
    this.#shards.onMoved(() => this.#current?.groupsLost());
    this.#shards.onArrived((shard, arrived) => this.#current?.groupArrived(shard, arrived));
  }

  /** What the optimizer keeps of whole tensors; writing sets it, before the first step. */
  get tensorStates(): TensorStates {
    return this.#updates.tensorStates;
  }

  /** Of the parameters that the next tasks are of. */
  readonly version = (): number => this.#updates.numUpdates;

  /** The step in progress is finished first; anything else is left where it is, for a life that goes on. */
  requestStop(): void {
    this.#stopRequested = true;
    this.#quorum.giveUp();
    if (this.#current === undefined) this.#stop();
  }

  /** The step in progress is finished and saved. @returns false where that was asked for already */
  requestSave(): boolean {
    return this.#saves.request() && !this.#stopRequested && !this.#hasEnded;
  }

  /**
   * To be called when workers came or went, and regularly. Without any the run waits and says so; a requested stop
   * takes effect then, since nobody can finish the step.
   */
  membersChanged(numWorkers: number): void {
    this.#queue.membersChanged();
    if (numWorkers === 0 && this.#stopRequested) this.#stop();
    if (this.#hasEnded) return;
    this.#court.membersChanged();
    this.#quorum.membersChanged(numWorkers);
  }

  async run(): Promise<
    Omit<RunOutcome, "snapshot" | "mastersSha256" | "seconds" | "releaseShards">
  > {
    let isWhole = true;
    try {
      isWhole = await this.#allSteps();
    } catch (error) {
      if (!(error instanceof StoppedEarly)) {
        // The run's failure has been told, so this may not wait on `orFailure`.
        await this.#saves.beforeFailing(error, this.#step, this.#isUpdating);
        throw error;
      }
      isWhole = false;
    } finally {
      this.#hasEnded = true;
    }
    await this.#orFailure(this.#saves.atEnd(this.#step, !isWhole));
    await this.#orFailure(this.#saves.settled());
    return {
      outcome: this.#isAtEnd ? "finished" : "interrupted",
      isWhole,
      step: this.#step,
      state: this.#state(),
      ...this.#evaluation.results,
    };
  }

  /** @returns false where a stop left something to do */
  async #allSteps(): Promise<boolean> {
    const begunAt = this.#step;
    const isRecovered = this.#options.recovery !== undefined;
    await this.#journal({ isNew: true, ...this.#leftOpen });
    // What workers agreed on may be in the weights: what comes before that has been done.
    const isAgreed = this.#leftOpen?.agreed !== undefined;
    const isUnfinished = !isAgreed || this.#options.recovery?.keepsBest === true;
    if (isRecovered && begunAt > 0 && isUnfinished) await this.#finishStep();
    else if (begunAt === 0 || !isRecovered) await this.#evaluation.beforeTraining(begunAt);
    if (begunAt === 0) await this.#measureFisher();
    if (!this.#isAtEnd) this.#phases.begin("training");
    while (!this.#isAtEnd) {
      if (!this.#stopRequested) await this.#options.pause?.passed(this.#phases, this.#whilePaused);
      if (this.#stopRequested) return false;
      await this.#trainStep();
      await this.#finishStep();
    }
    this.#history.tellEarlyStop(this.#step);
    await this.#evaluation.afterTraining(this.#step);
    this.#history.finished(this.#step);
    await this.#journal();
    // Where nothing was left to train, workers need not be there.
    if (this.#step > begunAt || isRecovered) {
      await this.#evaluation.generate(this.#step).catch((error: unknown) => {
        // A sample is nothing to come back for.
        if (!(error instanceof StoppedEarly)) throw error;
      });
    }
    return true;
  }

  /** What comes between a step and the next one. */
  async #finishStep(): Promise<void> {
    // Evaluated first, so that the checkpoint's history holds its evaluation, as transformers' does.
    const isBest = await this.#evaluation.afterStep(this.#step);
    const saving = this.#saves.afterStep(this.#step, { isBest, isLast: this.#isAtEnd });
    if (await this.#orFailure(saving)) await this.#journal({ isNew: true, ...this.#leftOpen });
  }

  /** Whether all steps are made, or evaluations ended the run before. */
  get #isAtEnd(): boolean {
    return this.#step >= this.#options.plan.totalSteps || this.#history.stop !== undefined;
  }

  async #measureFisher(): Promise<void> {
    if (this.#fisher.isDone) return;
    await measureFisher({
      progress: this.#fisher,
      leftOpen: () => this.#takeLeftOpen(),
      agreed: async (agreed) => this.#options.journal?.agreed(agreed),
      kept: async (progress) => {
        this.#fisher = progress;
        await this.#journal();
      },
      options: this.#options,
      shards: this.#shards,
      court: this.#court,
      phases: this.#phases,
      newLeases: (numItems) => this.#leaseTable(numItems),
      untilComplete: async (round) => {
        if (this.#stopRequested) this.#stop();
        await this.#untilComplete(round);
      },
      orFailure: (promise) => this.#orFailure(promise),
      onReopened: () => this.#queue.serve(),
    });
  }

  async #trainStep(): Promise<void> {
    const { plan, bus, gradientGroups, job } = this.#options;
    const step = this.#step;
    await this.#enoughWorkers();
    this.#history.stepStarted();
    const { lossScale, numUpdates } = this.#updates;
    const lossWeights = plan.lossWeights?.(step) ?? [plan.lossWeight(step)];
    const gradScales = this.#updates.terms.gradScales(lossWeights, lossScale);
    const { terms, sums, metrics, ...made } = await makeStep({
      options: this.#options,
      shards: this.#shards,
      updates: this.#updates,
      step,
      leftOpen: this.#takeLeftOpen(),
      newWork: () =>
        new TrainingStep({
          ...{ step, version: numUpdates, gradScales, numGroups: gradientGroups, job, bus },
          isFingerprinted: isDue(this.#options.fingerprintSteps, step + 1),
          microBatches: (group) => plan.microBatches(step, group),
          bytesAfterReportMs: this.#options.bytesAfterReportMs ?? defaultBytesAfterReportMs,
          newLeases: () => this.#leaseTable(gradientGroups),
          shards: this.#shards,
          jury: this.#court.juryOf("group", step),
          now: awakeMs,
          onReopened: () => this.#queue.serve(),
        }),
      untilComplete: (work) => this.#untilComplete(work),
      orFailure: (promise) => this.#orFailure(promise),
      updating: (isUpdating) => {
        this.#isUpdating = isUpdating;
      },
    });
    const { notes, ...update } = made.update;
    this.#step = step + 1;
    this.#isUpdating = false;
    const numRows = plan.rowsIn(step);
    const numInputTokens = plan.tokensIn?.(step) ?? numRows * job.sequenceLength;
    const tasks = terms.figures(sums);
    const endedAt = performance.now();
    const seconds = (endedAt - made.startedAt) / 1000;
    const event: StepCompleted = {
      type: "step.completed",
      step: this.#step,
      totalSteps: plan.totalSteps,
      epoch: plan.epochAt(this.#step),
      loss: terms.loss(sums),
      ...(tasks === undefined ? {} : { tasks }),
      ...(metrics === undefined ? {} : { metrics }),
      ...update,
      numRows,
      numTokens: numInputTokens,
      stepSeconds: seconds,
      syncSeconds: (endedAt - made.arrivedAt) / 1000,
      tokensPerSecond: numInputTokens / seconds,
    };
    bus.publish(event);
    for (const text of notes) bus.publish({ type: "note", text });
    const realTokens = (this.#options.countsPadding ?? true) ? undefined : plan.realTokens?.(step);
    this.#history.stepCompleted(event, realTokens ?? numInputTokens);
    await this.#journal();
    await this.#orFailure(this.#transfers.publish());
  }

  /** Waits for a step's groups. */
  async #untilComplete(work: TrainingStep): Promise<void> {
    try {
      await this.#enoughWorkers();
      this.#current = work;
      await this.#work(work, work.completed);
    } catch (error) {
      // One that others may go on with is left open for them.
      const isLeft = this.#options.journal !== undefined;
      if (error instanceof StoppedEarly && !isLeft) await this.#shards.discard(work.step);
      throw error;
    } finally {
      this.#current = undefined;
    }
  }

  readonly #whilePaused = async (resumed: Promise<void>): Promise<void> => {
    await this.#orFailure(this.#saves.betweenSteps(this.#step));
    await this.#orFailure(Promise.race([resumed, this.#stopped]));
  };

  /** Nothing begins with fewer workers than `min_workers`; what is begun is finished by those that are here. */
  async #enoughWorkers(): Promise<void> {
    const isOver = this.#isAtEnd || this.#stopRequested;
    if (!isOver) await this.#orFailure(Promise.race([this.#quorum.reached(), this.#stopped]));
  }

  async #work<T>(work: Work, completed: Promise<T>): Promise<T> {
    this.#queue.open(work);
    try {
      return await this.#orFailure(Promise.race([completed, this.#stopped]));
    } finally {
      this.#queue.close();
    }
  }

  async #orFailure<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#failure]);
  }

  #leaseTable(numItems: number): LeaseTable {
    return new LeaseTable({
      numItems,
      leaseTimeoutMs: this.#options.leaseTimeoutMs ?? defaultLeaseTimeoutMs,
      now: awakeMs,
      nextLeaseId: () => this.#nextLeaseId++,
    });
  }

  /** Of the first step or round only: what comes after it nobody has begun. */
  #takeLeftOpen(): { readonly agreed?: AgreedStep } | undefined {
    const leftOpen = this.#leftOpen;
    this.#leftOpen = undefined;
    return leftOpen;
  }

  async #journal(how: Parameters<RunJournal["state"]>[2] = {}): Promise<void> {
    const { journal } = this.#options;
    if (journal === undefined) return;
    const deviceKind = this.#deviceKind();
    const state: RunState = {
      checkpoint: this.#state(),
      skipped: this.#updates.skipped,
      session: this.#history.session,
      ...this.#evaluation.results,
      savedStep: this.#saves.savedStep,
      fisher: this.#fisher,
      ...(deviceKind === undefined ? {} : { deviceKind }),
    };
    await this.#orFailure(journal.state(state, this.#updates.tensorStates, how));
  }

  #state(): CheckpointState {
    const { numUpdates, lossScaler, schedule, terms } = this.#updates;
    return {
      step: this.#step,
      numUpdates,
      ...(lossScaler === undefined ? {} : { lossScaler }),
      ...(schedule === undefined ? {} : { schedule }),
      ...(terms.state === undefined ? {} : { lossTerms: terms.state }),
      epoch: this.#options.plan.epochAt(this.#step),
      ...this.#history.state(),
    };
  }
}

/** Ends the sequence of a run whose stop was requested; not an error for anybody outside. */
class StoppedEarly extends Error {}
