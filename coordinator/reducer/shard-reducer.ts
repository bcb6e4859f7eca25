import { createHash } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { LockstepError } from "#lib/core/errors/index";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import {
  type ChosenOptimizer,
  type Measurement,
  ShardArithmetic,
  type SumWindow,
  type Update,
} from "#lib/optim/index";
import type {
  ArrivedGroup,
  PenalisedSums,
  ShardStage,
  ShardStatus,
} from "#lib/wire/reducer-messages";
import { PublishedVersions } from "./published-versions.js";
import { ShardState } from "./shard-state.js";
import { StepAnswers } from "./step-answers.js";

/**
 * Bytes that gradients awaiting their turn may take on a shard. Beyond it, pushes wait; whole groups
 * are added as soon as those before them have been, so a shard rarely holds more than a few.
 */
const maxAssemblyBytes = 4 * 1024 ** 3;
/** What is digested between two turns of the event loop, some 50 ms; a large range takes longer than connections live. */
const digestedBytes = 64 * 1024 ** 2;
/** Pushes beyond one a group: leases that another worker took over. */
const numSpareAssemblies = 2;

interface ShardReducerOptions {
  readonly shardIndex: number;
  readonly layout: ParameterLayout;
  readonly range: ElementRange;
  readonly optimizer: ChosenOptimizer;
  readonly gradientGroups: number;
  readonly onBufferFree?: () => void;
  readonly onArrived?: (arrived: ArrivedGroup) => void;
}

/**
 * A reducer shard without threads and sockets: arrivals, sums in group order, updates, versions.
 *
 * A step has two phases, and every call of it may be repeated: `reduce`, `penalise` and `measure` prepare it and give
 * the answer of the first time until the next step is opened; `apply`, `discard` and `keepSquares` end it, once. So
 * whoever does not know how far a step came asks for all of it again, in the same order.
 */
export class ShardReducer {
  readonly state: ShardState;
  readonly arithmetic: ShardArithmetic;
  readonly published = new PublishedVersions();
  readonly maxAssemblies: number;
  readonly #options: ShardReducerOptions;
  readonly #answers = new StepAnswers();
  /** Of the step in progress, or of the last one that was. */
  #stage: ShardStage = "none";
  #finishedScale: number | undefined;
  /** Nobody has loaded anything yet. */
  #isFresh = true;
  #numSquaresKept = 0;
  #numApplied = 0;
  #numAppliesRepeated = 0;

  private constructor(options: ShardReducerOptions, arithmetic: ShardArithmetic) {
    const { shardIndex, gradientGroups, onBufferFree, onArrived } = options;
    this.#options = options;
    this.arithmetic = arithmetic;
    this.maxAssemblies = Math.max(
      2,
      Math.min(
        gradientGroups + numSpareAssemblies,
        Math.floor(maxAssemblyBytes / arithmetic.wireBytes),
      ),
    );
    this.state = new ShardState({
      shardIndex,
      rangeBytes: arithmetic.wireBytes,
      numGroups: gradientGroups,
      maxAssemblies: this.maxAssemblies,
      numWarmBuffers: Math.min(gradientGroups, 2),
      ...(onBufferFree === undefined ? {} : { onBufferFree }),
      ...(onArrived === undefined ? {} : { onArrived }),
    });
  }

  /** @throws E_SHARD_TOO_LARGE */
  static async create(options: ShardReducerOptions): Promise<ShardReducer> {
    const { layout, range, optimizer } = options;
    return new ShardReducer(options, await ShardArithmetic.create(layout, range, optimizer));
  }

  /** What a coordinator that begins again has to know. */
  get status(): ShardStatus {
    const version = this.published.versions.at(-1);
    const { lastStep: step } = this.state;
    return {
      isLoaded: version !== undefined,
      ...(version === undefined ? {} : { version }),
      ...(step === undefined ? {} : { step }),
      stage: this.#stage,
      numSquaresKept: this.#numSquaresKept,
      isFisherFinished: this.#finishedScale !== undefined,
      numApplied: this.#numApplied,
      numAppliesRepeated: this.#numAppliesRepeated,
    };
  }

  /** Forgets all that it was told of steps: what comes next is the beginning of a run, or of its rest. */
  startOver(): void {
    // Fresh memory is zero; what was loaded before may be there in part only.
    if (!this.#isFresh || this.status.isLoaded) {
      for (const values of Object.values(this.arithmetic.states)) values.fill(0);
      this.arithmetic.masters.fill(0);
    }
    this.#isFresh = false;
    this.published.clear();
    this.#answers.clear();
    this.state.startOver();
    this.#stage = "none";
    this.#finishedScale = undefined;
    this.#numSquaresKept = 0;
    this.#numApplied = 0;
    this.#numAppliesRepeated = 0;
  }

  /**
   * Pushes of the step are taken from now on. Asked again it changes nothing, also where the step is over.
   *
   * @returns whether the step was not known
   * @throws E_SHARD_STATE
   */
  openStep(step: number): boolean {
    if (this.state.lastStep === step) return false;
    this.state.openStep(step);
    this.#answers.clear();
    this.#stage = "open";
    return true;
  }

  /** Forgets what has come of the step in progress, summed or not; it is sent again. @throws E_SHARD_STATE */
  restartStep(step: number): void {
    if (this.state.openStepNumber !== step) {
      throw this.#misuse(`restart step ${step}`, `step ${step} in progress`, this.#described);
    }
    this.state.restartStep();
    this.#answers.clear();
    this.#stage = "open";
  }

  /**
   * Adds the whole groups whose turn it is, so that their buffers are free again. The step's last
   * group stays for `reduce`, which takes the norm in the same pass.
   */
  addArrived(): void {
    while (this.state.nextGroup < this.#options.gradientGroups - 1 && this.#addNext());
  }

  /**
   * @returns fp64 sum of squares per block of the shard's range
   * @throws E_SHARD_STATE when a group is missing
   */
  reduce(step: number): Float64Array<ArrayBuffer> {
    return this.#once("reduce", step, undefined, () => {
      this.#require(`reduce step ${step}`, step, "open");
      if (!this.state.allArrived) {
        throw this.#misuse(
          `reduce step ${step}`,
          "every group",
          `${this.state.nextGroup} in order`,
        );
      }
      this.addArrived();
      const isFirst = this.state.nextGroup === 0;
      const bytes = this.state.takeNext();
      if (bytes === undefined) throw this.#misuse(`reduce step ${step}`, "a last group", "none");
      const blockSums = this.arithmetic.addLastGroup(bytes, isFirst);
      this.state.release(bytes);
      this.#stage = "reduced";
      return blockSums;
    });
  }

  /**
   * The sum of the step is there, out of another shard that added the groups; the groups themselves need not come here.
   *
   * @returns as `reduce`
   * @throws E_SHARD_STATE
   */
  sumTaken(step: number): Float64Array<ArrayBuffer> {
    return this.#once("reduce", step, undefined, () => {
      this.#require(`take the sum of step ${step}`, step, "open");
      this.#stage = "reduced";
      return this.arithmetic.blockSumsOfSquares();
    });
  }

  /** Whether the sum of the groups is there, as they are: nothing has been added to it or made of it. */
  hasSum(step: number): boolean {
    const isReduced = this.state.openStepNumber === step && this.#stage === "reduced";
    return isReduced && !this.#answers.has("penalise");
  }

  /** Whether the sum of a step is still to come. */
  awaitsSum(step: number): boolean {
    return this.state.openStepNumber === step && this.#stage === "open";
  }

  /** Whether the weights have had so many updates, and the step in progress changes nothing of what is kept yet. */
  keeps(version: number): boolean {
    return this.hasUpdates(version) && this.#stage !== "reduced";
  }

  /** Whether the weights have had so many updates, and no other. */
  hasUpdates(version: number): boolean {
    return this.published.versions.at(-1) === version;
  }

  /** All that is kept is there, out of another shard, which is between two steps. @throws E_SHARD_STATE */
  stateTaken({ version, numSquaresKept, isFisherFinished, ...made }: ShardStatus): void {
    this.#numSquaresKept = numSquaresKept;
    this.#numApplied = made.numApplied;
    this.#numAppliesRepeated = made.numAppliesRepeated;
    if (isFisherFinished) this.#finishedScale = Number.NaN;
    this.publishInitial(version ?? 0);
  }

  /** SHA-256 of masters and what the optimizer keeps, which nothing may change meanwhile; workers are served. */
  async digest(): Promise<string> {
    const { buffer, byteOffset, byteLength } = this.arithmetic.keptBytes;
    const hash = createHash("sha256");
    for (let done = 0; done < byteLength; done += digestedBytes) {
      // On shared memory, of which OpenSSL takes no view.
      const numBytes = Math.min(digestedBytes, byteLength - done);
      hash.update(Buffer.from(buffer, byteOffset + done, numBytes));
      await nextTurn();
    }
    return hash.digest("hex");
  }

  /** Adds the gradient of EWC's penalty to the step's. @throws E_SHARD_STATE before `reduce` */
  penalise(step: number, factor: number): PenalisedSums {
    return this.#once("penalise", step, factor, () => {
      this.#require(`penalise step ${step}`, step, "reduced");
      const distances = this.arithmetic.addPenalty(factor);
      return { distances, squares: this.arithmetic.blockSumsOfSquares() };
    });
  }

  /** Adds the sum of the groups, which is of squared gradients, to F; the step is over. @throws E_SHARD_STATE */
  keepSquares(step: number, first: boolean): void {
    this.#once("keep the squares of", step, first, () => {
      this.#require(`keep the squares of step ${step}`, step, "reduced");
      this.arithmetic.keepSquares(first);
      this.#numSquaresKept = first ? 1 : this.#numSquaresKept + 1;
      this.#close("kept");
    });
  }

  /** Sums of F, of blocks in block order: those of before it was finished, where they were asked for then. */
  fisherSums(): Float64Array<ArrayBuffer> {
    const different = (): Error => this.#misuse("sum F", "no other sums", "others");
    return this.#answers.once("sum F", undefined, () => this.arithmetic.fisherSums(), different);
  }

  /** Ends the measurement of F; steps are counted from 0 again. @throws E_SHARD_STATE during a step */
  finishFisher(scale: number): void {
    if (this.#finishedScale === scale && this.state.lastStep === undefined) return;
    const { openStepNumber } = this.state;
    if (openStepNumber !== undefined || this.#finishedScale !== undefined) {
      throw this.#misuse("finish F", "no step in progress, once", this.#described);
    }
    this.arithmetic.finishFisher(scale);
    this.#finishedScale = scale;
    this.#stage = "none";
    this.state.startOver();
  }

  /** Adds up what the optimizer needs of whole tensors. @throws E_SHARD_STATE */
  measure(step: number, measurement: Measurement): readonly SumWindow[] {
    return this.#once(`take the sums of pass ${measurement.pass} of`, step, measurement, () => {
      this.#require(`measure step ${step}`, step, "reduced");
      return this.arithmetic.measure(measurement);
    });
  }

  /** Updates the masters and publishes them under the update's number; the step is over. @throws E_SHARD_STATE */
  apply(step: number, update: Update): void {
    const isRepeated = this.#stage === "applied" && this.state.lastStep === step;
    this.#once("apply", step, update, () => {
      this.#require(`apply step ${step}`, step, "reduced");
      this.published.makeRoom();
      this.arithmetic.apply(update);
      this.published.add(update.updateNumber, this.arithmetic.publish());
      this.#numApplied++;
      this.#close("applied");
    });
    if (isRepeated) this.#numAppliesRepeated++;
  }

  /** Forgets the gradients of a step; masters and versions stay. @throws E_SHARD_STATE */
  discard(step: number): void {
    if (this.#stage === "discarded" && this.state.lastStep === step) return;
    if (this.state.openStepNumber !== step) {
      throw this.#misuse(`discard step ${step}`, `step ${step} in progress`, this.#described);
    }
    this.#close("discarded");
  }

  /** Publishes the masters as they are; done where they are published under that number. @throws E_SHARD_STATE */
  publishInitial(version: number): void {
    const { openStepNumber } = this.state;
    if (this.published.versions.includes(version)) return;
    if (openStepNumber !== undefined) {
      throw this.#misuse("publish the masters", "no step in progress", `step ${openStepNumber}`);
    }
    this.published.makeRoom();
    this.published.add(version, this.arithmetic.publish());
  }

  #addNext(): boolean {
    const isFirst = this.state.nextGroup === 0;
    const bytes = this.state.takeNext();
    if (bytes === undefined) return false;
    this.arithmetic.addGroup(bytes, isFirst);
    this.state.release(bytes);
    return true;
  }

  #close(how: ShardStage): void {
    this.#stage = how;
    this.state.closeStep();
  }

  /** @throws E_SHARD_STATE for another step than the last that was opened, and for another question than before */
  #once<T>(call: string, step: number, asked: unknown, carryOut: () => T): T {
    const { lastStep } = this.state;
    if (lastStep !== step) {
      throw this.#misuse(`${call} step ${step}`, `step ${step} opened`, this.#described);
    }
    return this.#answers.once(call, asked, carryOut, () =>
      this.#misuse(`${call} step ${step}`, "what it was asked before", "something else"),
    );
  }

  #require(call: string, step: number, stage: "open" | "reduced"): void {
    if (this.state.openStepNumber === step && this.#stage === stage) return;
    throw this.#misuse(call, described(step, stage), this.#described);
  }

  get #described(): string {
    const { lastStep } = this.state;
    return lastStep === undefined ? "no step" : described(lastStep, this.#stage);
  }

  #misuse(call: string, expected: string, got: string): LockstepError {
    const { shardIndex } = this.#options;
    return new LockstepError("E_SHARD_STATE", { shardIndex, call, expected, got });
  }
}

const described = (step: number, stage: ShardStage): string =>
  `step ${step} ${stage === "open" ? "in progress" : stage}`;
