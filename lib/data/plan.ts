import { LockstepError } from "#lib/core/errors/index";
import type { Batch } from "#lib/core/batch";
import { permutation } from "#lib/core/random";
import { groupByLength } from "./length-groups.js";
import { gatherBatch, type TrainingRows } from "./rows.js";

/**
 * Which rows each optimizer update sees. A pure function of its options: neither the number of
 * workers nor what happened to them enters, so a step may be asked for at any time, by anyone.
 */
export interface TrainingPlan {
  readonly numRows: number;
  readonly rowsPerStep: number;
  readonly microBatchSize: number;
  readonly sequenceLength: number;
  readonly gradientGroups: number;
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  /** Real rows of a step: `rowsPerStep`, fewer in the last step of an epoch. */
  rowsIn(step: number): number;
  /** Micro-batches of a group, at least one, all of `microBatchSize` rows. @param group 0-based */
  microBatches(step: number, group: number): Batch[];
  /** What a step's loss is divided by: its supervised tokens, or rows. */
  lossWeight(step: number): number;
  /** What each term of the loss is divided by, 0 where the step has no row of it; absent: there is one. */
  lossWeights?(step: number): readonly number[];
  /** Tokens of a step's rows with their padding; absent: all rows are of one length. */
  tokensIn?(step: number): number;
  /** Tokens of a step's rows without their padding. */
  realTokens(step: number): number;
  /** Epochs that `completedSteps` updates make, a fraction within one, as the Trainer of transformers logs it. */
  epochAt(completedSteps: number): number;
}

/** Of rows of one kind. */
interface RowPlan extends TrainingPlan {
  /** The rows of a step by their place in {@link TrainingPlanOptions.rows}. @param step 0-based */
  rowIndices(step: number): Uint32Array;
}

interface TrainingPlanOptions extends PlanSettings {
  readonly rows: TrainingRows;
}

/** How steps are made of rows. */
export interface PlanSettings {
  readonly seed: number;
  /** Rows of one optimizer update, the global batch: a multiple of `microBatchSize`. */
  readonly rowsPerStep: number;
  readonly microBatchSize: number;
  /** At most the micro-batches of a step. */
  readonly gradientGroups: number;
  /** May be a fraction. @default 3 */
  readonly numEpochs?: number;
  /** Overrides `numEpochs` where it is above 0; runs through as many epochs as it takes. */
  readonly maxSteps?: number;
  /** As the Trainer of transformers names them. @default "random" */
  readonly sampling?: SamplingStrategy;
}

type SamplingStrategy = "random" | "sequential" | "group_by_length";

/**
 * Each epoch is a permutation of all rows (their own order where sampling is sequential), cut into steps of
 * `rowsPerStep`; the last step of an epoch takes what is left, as the Trainer of transformers does, and is
 * filled up with padding rows. Data of less than a step make one such step an epoch.
 * A step's micro-batches are cut into contiguous groups whose sizes differ by at most one.
 *
 * @throws E_PLAN_INVALID, E_DATASET_TOO_SMALL
 */
export function createTrainingPlan(options: TrainingPlanOptions): RowPlan {
  const { rows, seed, rowsPerStep, microBatchSize, gradientGroups, sampling = "random" } = options;
  checkOptions(options);
  const numRows = rows.numRows;
  const stepsPerEpoch = Math.ceil(numRows / rowsPerStep);
  const microBatchesPerStep = rowsPerStep / microBatchSize;
  const microBatchesPerEpoch = Math.ceil(numRows / microBatchSize);
  const totalSteps =
    options.maxSteps !== undefined && options.maxSteps > 0
      ? options.maxSteps
      : Math.ceil((options.numEpochs ?? 3) * stepsPerEpoch);

  // Steps come in order almost always; two epochs cover a group that is asked for again at a boundary.
  const orders = new Map<number, Uint32Array>();
  const orderOf = (epoch: number): Uint32Array => {
    let order = orders.get(epoch);
    if (order === undefined) {
      order =
        sampling === "sequential"
          ? Uint32Array.from({ length: numRows }, (_, i) => i)
          : permutation(seed, epoch, numRows);
      if (sampling === "group_by_length") order = groupByLength(order, rows, rowsPerStep);
      if (orders.size >= 2) orders.delete(Math.min(...orders.keys()));
      orders.set(epoch, order);
    }
    return order;
  };

  const rowIndices = (step: number): Uint32Array => {
    checkIndex("step", step, totalSteps);
    const start = (step % stepsPerEpoch) * rowsPerStep;
    return orderOf(Math.floor(step / stepsPerEpoch)).subarray(start, start + rowsPerStep);
  };
  const rowsIn = (step: number): number => {
    checkIndex("step", step, totalSteps);
    return Math.min(rowsPerStep, numRows - (step % stepsPerEpoch) * rowsPerStep);
  };

  return Object.freeze({
    numRows,
    rowsPerStep,
    microBatchSize,
    sequenceLength: rows.sequenceLength,
    gradientGroups,
    stepsPerEpoch,
    totalSteps,
    rowIndices,
    rowsIn,
    ...(rows.sequencesPerRow === undefined
      ? {}
      : {
          tokensIn: (step: number) =>
            rowsIn(step) * rows.sequenceLength * (rows.sequencesPerRow ?? 1),
        }),
    microBatches(step: number, group: number): Batch[] {
      checkIndex("group", group, gradientGroups);
      const indices = rowIndices(step);
      // A short step drops the micro-batches that would hold padding only, but leaves each group one.
      const numMicroBatches = Math.max(Math.ceil(indices.length / microBatchSize), gradientGroups);
      const first = Math.floor((group * numMicroBatches) / gradientGroups);
      const end = Math.floor(((group + 1) * numMicroBatches) / gradientGroups);
      return Array.from({ length: end - first }, (_, i) => {
        const start = (first + i) * microBatchSize;
        const batch = gatherBatch(
          rows,
          indices.subarray(start, start + microBatchSize),
          microBatchSize,
        );
        return { ...batch, coordinates: { step, group, index: i } };
      });
    },
    lossWeight: (step: number) =>
      rowIndices(step).reduce((sum, row) => sum + rows.lossWeight(row), 0),
    realTokens: (step: number) =>
      rowIndices(step).reduce((sum, row) => sum + rows.lengthOf(row), 0),
    epochAt(completedSteps: number): number {
      checkIndex("completedSteps", completedSteps, totalSteps + 1);
      const inEpoch = (completedSteps % stepsPerEpoch) * microBatchesPerStep;
      return Math.floor(completedSteps / stepsPerEpoch) + inEpoch / microBatchesPerEpoch;
    },
  });
}

export function checkOptions(options: TrainingPlanOptions): void {
  const { rows, rowsPerStep, microBatchSize, gradientGroups, numEpochs = 3 } = options;
  const refuse = (name: string, value: number, expected: string): never => {
    throw new LockstepError("E_PLAN_INVALID", { name, value, expected });
  };
  const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 1;
  if (!isCount(microBatchSize)) {
    refuse("the rows of a micro-batch", microBatchSize, "an integer of at least 1");
  }
  if (!isCount(rowsPerStep) || rowsPerStep % microBatchSize !== 0) {
    const expected = `a positive multiple of the ${microBatchSize} rows of a micro-batch`;
    refuse("the global batch size", rowsPerStep, expected);
  }
  const microBatchesPerStep = rowsPerStep / microBatchSize;
  if (!isCount(gradientGroups) || gradientGroups > microBatchesPerStep) {
    const expected = `an integer of 1 to the ${microBatchesPerStep} micro-batches of a step`;
    refuse("gradient_groups", gradientGroups, expected);
  }
  if (!(options.maxSteps !== undefined && options.maxSteps > 0)) {
    if (!(numEpochs > 0 && numEpochs < 1e6)) {
      refuse("num_train_epochs", numEpochs, "above 0 and below a million");
    }
  } else if (!Number.isSafeInteger(options.maxSteps)) {
    refuse("max_steps", options.maxSteps, "an integer");
  }
  if (rows.numRows === 0) {
    throw new LockstepError("E_DATASET_TOO_SMALL", { split: "train", numTokens: rows.numTokens });
  }
}

export function checkIndex(name: string, value: number, end: number): void {
  if (!Number.isInteger(value) || value < 0 || value >= end) {
    throw new RangeError(`${name} ${value} is not an integer in [0, ${end})`);
  }
}
