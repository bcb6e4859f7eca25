import { LockstepError } from "#lib/core/errors/index";
import type { Metrics } from "#lib/core/events";
import { blockElements, type ParameterLayout, regionAt } from "#lib/core/parameter-layout";
import type { Update } from "./block-passes.js";
import { clipCoefficient, totalNorm } from "./clip.js";
import type { MetricSchedule, MetricScheduleState } from "./metric-schedules.js";
import type { ChosenOptimizer } from "./optimizers/index.js";

/** Steps in a row with a non-finite gradient, each skipped, before the run is given up. */
export const maxSkippedStepsInARow = 3;

/** What updates need beside gradients. */
export interface UpdateSettings {
  readonly optimizer: ChosenOptimizer;
  /** The rate of update t (0-based count of completed updates). */
  readonly learningRateAt: (completedUpdates: number) => number;
  /** Where the rate follows a metric of evaluations, in place of `learningRateAt`. */
  readonly metricSchedule?: MetricSchedule;
  /** 0 or null: no clipping. */
  readonly maxGradNorm: number | null;
}

/** All shards of a flat space, wherever they are. */
export interface UpdatedShards {
  /**
   * Sums the groups of a step in group order.
   * @returns fp64 sums of squares of all blocks of the space, in block order
   */
  reduce(step: number): Promise<Iterable<number>>;
  /** Updates the masters by the sum, and publishes them under the update's number. */
  apply(step: number, update: Update): Promise<void>;
  /** Forgets the sum; masters and what is published stay. */
  discard(step: number): Promise<void>;
}

/**
 * What becomes of a step's gradients, in a cluster and in one process: they are summed, clipped and applied,
 * or left out where they are not finite. The learning rate goes by the updates that were made, not by the
 * steps, and so does what is published.
 */
export class StepUpdate {
  readonly #layout: ParameterLayout;
  readonly #settings: UpdateSettings;
  #numUpdates: number;
  #skippedInARow = 0;
  #schedule: MetricScheduleState | undefined;

  /**
   * @param numUpdates updates that were made before, of a run that goes on
   * @param schedule what its metric schedule remembered then
   */
  constructor(
    layout: ParameterLayout,
    settings: UpdateSettings,
    numUpdates = 0,
    schedule: MetricScheduleState | undefined = settings.metricSchedule?.start,
  ) {
    this.#layout = layout;
    this.#settings = settings;
    this.#numUpdates = numUpdates;
    this.#schedule = schedule;
  }

  /** Updates made: the version that is published. */
  get numUpdates(): number {
    return this.#numUpdates;
  }

  /** What the metric schedule remembers; undefined where the rate follows no metric. */
  get schedule(): MetricScheduleState | undefined {
    return this.#schedule;
  }

  /** Tells the metric schedule of an evaluation that came when it was due; others do not count. */
  evaluated({ loss, metrics }: { readonly loss: number; readonly metrics: Metrics }): void {
    const { metricSchedule } = this.#settings;
    if (metricSchedule === undefined || this.#schedule === undefined) return;
    const { metric, next } = metricSchedule;
    this.#schedule = next(
      this.#schedule,
      metric === "loss" ? loss : (metrics[metric] ?? Number.NaN),
    );
  }

  /**
   * Ends a step of which all gradients are there: sum, norm over blocks in block order, finite?, clip,
   * optimizer, publish.
   *
   * @param step 0-based
   * @returns the rate of its update, and the norm before clipping
   * @throws E_NON_FINITE_GRADIENT where too many steps in a row have no finite gradient
   */
  async run(
    shards: UpdatedShards,
    { step, loss }: { readonly step: number; readonly loss: number },
  ): Promise<{ readonly learningRate: number; readonly gradientNorm: number }> {
    const updateNumber = this.#numUpdates + 1;
    const learningRate =
      this.#schedule?.learningRate ?? this.#settings.learningRateAt(this.#numUpdates);
    const gradientNorm = totalNorm(this.#counted(await shards.reduce(step), updateNumber));
    if (!Number.isFinite(gradientNorm)) {
      await shards.discard(step);
      this.#skippedInARow += 1;
      if (this.#skippedInARow >= maxSkippedStepsInARow) {
        const skipped = this.#skippedInARow;
        throw new LockstepError("E_NON_FINITE_GRADIENT", { step: step + 1, loss, skipped });
      }
      return { learningRate, gradientNorm };
    }
    this.#skippedInARow = 0;
    const gradientScale = clipCoefficient(gradientNorm, this.#settings.maxGradNorm);
    await shards.apply(step, { learningRate, updateNumber, gradientScale });
    this.#numUpdates = updateNumber;
    return { learningRate, gradientNorm };
  }

  /** Without the blocks of regions whose first update is a later one. */
  #counted(blockSums: Iterable<number>, updateNumber: number): Iterable<number> {
    if (this.#layout.regions.every(({ firstUpdate }) => firstUpdate <= updateNumber)) {
      return blockSums;
    }
    return [...blockSums].filter(
      (_, block) => regionAt(this.#layout, block * blockElements).firstUpdate <= updateNumber,
    );
  }
}
