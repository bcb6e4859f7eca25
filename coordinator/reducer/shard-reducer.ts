import { LockstepError } from "#lib/core/errors/index";
import type { ElementRange, ParameterLayout } from "#lib/core/parameter-layout";
import {
  type ChosenOptimizer,
  type Measurement,
  ShardArithmetic,
  type SumWindow,
  type Update,
} from "#lib/optim/index";
import { PublishedVersions } from "./published-versions.js";
import { type ArrivedGroup, ShardState } from "./shard-state.js";
import type { PenalisedSums } from "./thread-protocol.js";

/**
 * Bytes that gradients awaiting their turn may take on a shard. Beyond it, pushes wait; whole groups
 * are added as soon as those before them have been, so a shard rarely holds more than a few.
 */
const maxAssemblyBytes = 4 * 1024 ** 3;
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

/** A reducer shard without threads and sockets: arrivals, sums in group order, updates, versions. */
export class ShardReducer {
  readonly state: ShardState;
  readonly arithmetic: ShardArithmetic;
  readonly published = new PublishedVersions();
  readonly maxAssemblies: number;
  readonly #options: ShardReducerOptions;
  #isReduced = false;

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

  openStep(step: number): void {
    this.state.openStep(step);
    this.#isReduced = false;
  }

  /** Forgets what has come of the step in progress, summed or not; it is sent again. @throws E_SHARD_STATE */
  restartStep(step: number): void {
    if (this.state.openStepNumber !== step) this.#require(`restart step ${step}`, step, false);
    this.state.restartStep();
    this.#isReduced = false;
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
    this.#require(`reduce step ${step}`, step, false);
    if (!this.state.allArrived) {
      throw this.#misuse(`reduce step ${step}`, "every group", `${this.state.nextGroup} in order`);
    }
    this.addArrived();
    const isFirst = this.state.nextGroup === 0;
    const bytes = this.state.takeNext();
    if (bytes === undefined) throw this.#misuse(`reduce step ${step}`, "a last group", "none");
    const blockSums = this.arithmetic.addLastGroup(bytes, isFirst);
    this.state.release(bytes);
    this.#isReduced = true;
    return blockSums;
  }

  /** Adds the gradient of EWC's penalty to the step's. @throws E_SHARD_STATE before `reduce` */
  penalise(step: number, factor: number): PenalisedSums {
    this.#require(`penalise step ${step}`, step, true);
    const distances = this.arithmetic.addPenalty(factor);
    return { distances, squares: this.arithmetic.blockSumsOfSquares() };
  }

  /** Adds the sum of the groups, which is of squared gradients, to F; the step is over. @throws E_SHARD_STATE */
  keepSquares(step: number, first: boolean): void {
    this.#require(`keep the squares of step ${step}`, step, true);
    this.arithmetic.keepSquares(first);
    this.state.closeStep();
  }

  /** Ends the measurement of F; steps are counted from 0 again. @throws E_SHARD_STATE during a step */
  finishFisher(scale: number): void {
    const { openStepNumber } = this.state;
    if (openStepNumber !== undefined) {
      throw this.#misuse("finish F", "no step in progress", `step ${openStepNumber}`);
    }
    this.arithmetic.finishFisher(scale);
    this.state.startOver();
  }

  /** Adds up what the optimizer needs of whole tensors. @throws E_SHARD_STATE */
  measure(step: number, measurement: Measurement): readonly SumWindow[] {
    this.#require(`measure step ${step}`, step, true);
    return this.arithmetic.measure(measurement);
  }

  /** Updates the masters and publishes them under the update's number; the step is over. @throws E_SHARD_STATE */
  apply(step: number, update: Update): void {
    this.#require(`apply step ${step}`, step, true);
    this.published.makeRoom();
    this.arithmetic.apply(update);
    this.published.add(update.updateNumber, this.arithmetic.publish());
    this.state.closeStep();
  }

  /** Forgets the gradients of a step; masters and versions stay. @throws E_SHARD_STATE */
  discard(step: number): void {
    if (this.state.openStepNumber !== step) this.#require(`discard step ${step}`, step, true);
    this.state.closeStep();
  }

  /** Publishes the masters as they are. @throws E_SHARD_STATE during a step */
  publishInitial(version: number): void {
    const { openStepNumber } = this.state;
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

  #require(call: string, step: number, isReduced: boolean): void {
    const { openStepNumber } = this.state;
    const describe = (number: number | undefined, reduced: boolean): string =>
      number === undefined ? "no step" : `step ${number} ${reduced ? "reduced" : "in progress"}`;
    if (openStepNumber === step && this.#isReduced === isReduced) return;
    throw this.#misuse(call, describe(step, isReduced), describe(openStepNumber, this.#isReduced));
  }

  #misuse(call: string, expected: string, got: string): LockstepError {
    const { shardIndex } = this.#options;
    return new LockstepError("E_SHARD_STATE", { shardIndex, call, expected, got });
  }
}
