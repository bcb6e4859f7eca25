import type { TensorStates } from "#lib/core/shard-arrays";
import { LockstepError } from "#lib/core/errors/index";
import type { Metrics } from "#lib/core/events";
import type { LossSum } from "#lib/core/job";
import { blockElements, type ParameterLayout, regionAt } from "#lib/core/parameter-layout";
import { clipCoefficient, totalNorm } from "./clip.js";
import { type PenalisedShards, penaltyOf } from "./ewc.js";
import { LossTerms, type LossTermsSettings, type LossTermsState } from "./loss-terms.js";
import { LossScaler, type LossScalerState, type LossScaling } from "./loss-scaler.js";
import type { MetricSchedule, MetricScheduleState } from "./metric-schedules.js";
import type { ChosenOptimizer } from "./optimizers/index.js";
import type { Update } from "./region-update.js";
import type { Measurement } from "./tensor-passes.js";
import { TensorStatistics } from "./tensor-statistics.js";
import type { SumWindow } from "./tensor-sums.js";

/**
 * Steps in a row with a non-finite gradient, each skipped, before the run is given up. Only those count whose loss
 * was not scaled up: what overflows with a larger scale may be finite with the next one, and halving ends there
 * after the scale's binary logarithm of steps, 16 for the first scale of a run.
 */
export const maxSkippedStepsInARow = 3;

const noneSkipped: SkippedSteps = Object.freeze({ inARow: 0, unscaled: 0 });

/** What updates need beside gradients. */
export interface UpdateSettings {
  readonly optimizer: ChosenOptimizer;
  /** The rate of update t (0-based count of completed updates). */
  readonly learningRateAt: (completedUpdates: number) => number;
  /** Where the rate follows a metric of evaluations, in place of `learningRateAt`. */
  readonly metricSchedule?: MetricSchedule;
  /** 0 or null: no clipping. */
  readonly maxGradNorm: number | null;
  /** For float16, whose gradients leave its range in both directions; absent: gradients are not scaled. */
  readonly lossScaling?: LossScaling;
  /** Where the loss is a weighted sum of means; absent: it is one mean. */
  readonly lossTerms?: LossTermsSettings;
  /** What is told when the first update of regions is made that are not for the first one. */
  readonly openings?: readonly { readonly updateNumber: number; readonly text: string }[];
}

/** What updates leave for those that follow, in a checkpoint. */
interface ResumedUpdates {
  readonly numUpdates?: number | undefined;
  /** Where it scales. */
  readonly lossScaler?: LossScalerState | undefined;
  /** Where the rate follows a metric. */
  readonly schedule?: MetricScheduleState | undefined;
  /** Where weights of tasks are learnt. */
  readonly lossTerms?: LossTermsState | undefined;
  readonly skipped?: SkippedSteps | undefined;
}

/** Steps in a row, up to the last one, without a finite gradient. */
export interface SkippedSteps {
  readonly inARow: number;
  /** Of those, the ones with a loss that was not scaled up. */
  readonly unscaled: number;
}

/** What became of a step. */
interface UpdatedStep {
  readonly learningRate: number;
  /** Before clipping, of the gradient without its scale. */
  readonly gradientNorm: number;
  /** What the loss was multiplied by, where `lossScaling` asks for that. */
  readonly lossScale?: number;
  /** EWC's, of the weights before the update, where there is one. */
  readonly ewcPenalty?: number;
  /** For a person. */
  readonly notes: readonly string[];
}

/** All shards of a flat space, wherever they are. */
export interface UpdatedShards {
  /**
   * Sums the groups of a step in group order.
   * @returns fp64 sums of squares of all blocks of the space, in block order
   */
  reduce(step: number): Promise<Iterable<number>>;
  /** Called only where the optimizer has a penalty of EWC. */
  readonly penalise?: PenalisedShards["penalise"];
  /**
   * Adds up what the optimizer needs of whole tensors; called only for one that needs something.
   * @returns sums of the shards' parts of tensors, in the order of the shards
   */
  measure(step: number, measurement: Measurement): Promise<readonly SumWindow[]>;
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
  readonly #scaler: LossScaler | undefined;
  readonly #statistics: TensorStatistics;
  #terms: LossTerms;
  #numUpdates: number;
  #skipped: SkippedSteps;
  #schedule: MetricScheduleState | undefined;

  /** @param resumed what a run that goes on had come to */
  constructor(layout: ParameterLayout, settings: UpdateSettings, resumed: ResumedUpdates = {}) {
    this.#layout = layout;
    this.#settings = settings;
    this.#statistics = new TensorStatistics(layout, settings.optimizer);
    this.#numUpdates = resumed.numUpdates ?? 0;
    const { lossScaling, metricSchedule } = settings;
    this.#scaler = lossScaling && new LossScaler(lossScaling, resumed.lossScaler);
    this.#terms = new LossTerms(settings.lossTerms, resumed.lossTerms);
    this.#schedule = resumed.schedule ?? metricSchedule?.start;
    this.#skipped = resumed.skipped ?? noneSkipped;
  }

  /** Updates made: the version that is published. */
  get numUpdates(): number {
    return this.#numUpdates;
  }

  /** What the gradients of the next step are to be multiplied by. */
  get lossScale(): number {
    return this.#scaler?.scale ?? 1;
  }

  /** The weights of the tasks in the next step. */
  get terms(): LossTerms {
    return this.#terms;
  }

  get skipped(): SkippedSteps {
    return this.#skipped;
  }

  /** For a checkpoint. */
  get lossScaler(): LossScalerState | undefined {
    return this.#scaler?.state;
  }

  /** What the optimizer keeps of whole tensors; writing sets it, before the first step. */
  get tensorStates(): TensorStates {
    return this.#statistics.states;
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
   * statistics of tensors, optimizer, publish. Whether one of `lossScale` overflowed is decided here, for all
   * shards.
   *
   * @param step 0-based
   * @param confirmNonFinite called where the sum is not finite: whether the gradients were taken back and are there
   *   again, computed by others
   * @throws E_NON_FINITE_GRADIENT where too many steps in a row have no finite gradient
   */
  async run(
    shards: UpdatedShards,
    {
      step,
      loss,
      sums = () => [],
      confirmNonFinite = async () => false,
    }: {
      readonly step: number;
      readonly loss: number;
      /** Of the loss's terms, once the gradients are agreed on. */
      readonly sums?: () => readonly LossSum[];
      readonly confirmNonFinite?: () => Promise<boolean>;
    },
  ): Promise<UpdatedStep> {
    const { lossScale } = this;
    const unscale = 1 / lossScale;
    const updateNumber = this.#numUpdates + 1;
    const learningRate =
      this.#schedule?.learningRate ?? this.#settings.learningRateAt(this.#numUpdates);
    const { ewcLambda: lambda } = this.#settings.optimizer;
    let ewcPenalty: number | undefined;
    const normOfSum = async (): Promise<number> => {
      let squares = await shards.reduce(step);
      if (lambda !== undefined) {
        const penalised = await shards.penalise?.(step, lambda * lossScale);
        if (penalised === undefined) throw new Error("The shards add no penalty");
        ewcPenalty = penaltyOf(lambda, penalised.distances);
        squares = penalised.squares;
      }
      return totalNorm(this.#counted(squares, updateNumber)) * unscale;
    };
    let gradientNorm = await normOfSum();
    while (!Number.isFinite(gradientNorm) && (await confirmNonFinite())) {
      gradientNorm = await normOfSum();
    }
    const figures = {
      ...{ learningRate, gradientNorm },
      ...(this.#scaler === undefined ? {} : { lossScale }),
      ...(ewcPenalty === undefined ? {} : { ewcPenalty }),
    };
    const isFinite = Number.isFinite(gradientNorm);
    if (isFinite) {
      this.#skipped = noneSkipped;
      const gradientScale = clipCoefficient(gradientNorm, this.#settings.maxGradNorm) * unscale;
      const update = await this.#statistics.run(
        { learningRate, updateNumber, gradientScale },
        async (measurement) => shards.measure(step, measurement),
      );
      await shards.apply(step, update);
      this.#terms = this.#terms.learned(sums(), learningRate);
      this.#numUpdates = updateNumber;
    } else {
      await shards.discard(step);
      const { inARow, unscaled } = this.#skipped;
      this.#skipped = { inARow: inARow + 1, unscaled: unscaled + (lossScale <= 1 ? 1 : 0) };
      if (this.#skipped.unscaled >= maxSkippedStepsInARow) {
        const skipped = this.#skipped.inARow;
        throw new LockstepError("E_NON_FINITE_GRADIENT", { step: step + 1, loss, skipped });
      }
    }
    this.#scaler?.update(!isFinite);
    const opened = isFinite ? (this.#settings.openings ?? []) : [];
    const notes = [
      ...warningsOf(lossScale, this.lossScale),
      ...opened.flatMap((each) => (each.updateNumber === updateNumber ? [each.text] : [])),
    ];
    return { ...figures, notes };
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

/** Told once on the way down. */
const warningsOf = (before: number, now: number): readonly string[] =>
  before >= 1 && now < 1
    ? [
        `warning: the loss scale falls to ${now}: gradients overflow float16 without being scaled up; bf16 or float32 have the range for them`,
      ]
    : [];
