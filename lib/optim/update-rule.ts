import { LockstepError } from "#lib/core/errors/index";
import type { AdamWStep } from "./block-passes.js";
import { clipCoefficient } from "./clip.js";

/** Steps in a row with a non-finite gradient, each skipped, before the run is given up. */
export const maxSkippedStepsInARow = 3;

/** What an update needs beside gradients. */
export interface OptimizerSettings {
  /** The rate of update t (0-based count of completed updates). */
  readonly learningRateAt: (completedUpdates: number) => number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** 0 or null: no clipping. */
  readonly maxGradNorm: number | null;
}

/** The gradient of a step, summed over its groups. */
export interface StepGradient {
  /** 0-based. */
  readonly step: number;
  readonly loss: number;
  readonly norm: number;
}

/**
 * What becomes of a step's gradient, in a cluster and in one process: it is clipped and applied, or left out
 * where it is not finite. The learning rate goes by the updates that were made, not by the steps.
 */
export class UpdateRule {
  readonly #settings: OptimizerSettings;
  #numUpdates: number;
  #skippedInARow = 0;

  /** @param numUpdates updates that were made before, of a run that goes on */
  constructor(settings: OptimizerSettings, numUpdates = 0) {
    this.#settings = settings;
    this.#numUpdates = numUpdates;
  }

  /** Updates made. */
  get numUpdates(): number {
    return this.#numUpdates;
  }

  /** The rate of the next update. */
  get learningRate(): number {
    return this.#settings.learningRateAt(this.#numUpdates);
  }

  /**
   * The update that a gradient makes; undefined where the step is skipped. It counts from `made` on.
   *
   * @throws E_NON_FINITE_GRADIENT where too many steps in a row have no finite gradient
   */
  next({ step, loss, norm }: StepGradient): AdamWStep | undefined {
    if (!Number.isFinite(norm)) {
      this.#skippedInARow += 1;
      if (this.#skippedInARow < maxSkippedStepsInARow) return undefined;
      const skipped = this.#skippedInARow;
      throw new LockstepError("E_NON_FINITE_GRADIENT", { step: step + 1, loss, skipped });
    }
    this.#skippedInARow = 0;
    const { beta1, beta2, epsilon, weightDecay, maxGradNorm } = this.#settings;
    return {
      ...{ beta1, beta2, epsilon, weightDecay, learningRate: this.learningRate },
      updateNumber: this.#numUpdates + 1,
      gradientScale: clipCoefficient(norm, maxGradNorm),
    };
  }

  /** The update of `next` has been applied. */
  made(): void {
    this.#numUpdates += 1;
  }
}
