import type { Batch } from "#lib/core/batch";
import { permutation } from "#lib/core/random";
import { checkIndex, checkOptions, type PlanSettings, type TrainingPlan } from "./plan.js";
import { gatherBatch, type TrainingRows } from "./rows.js";

/** Rows that are mixed with others into the steps of a run. */
export interface PlanPart {
  readonly rows: TrainingRows;
  /** Place of their task in the job: a batch holds rows of one. */
  readonly task: number;
  /** Place of the term of the loss that they count in. */
  readonly term: number;
  /** Of a step's rows, as a share of 1; shares of all parts add up to 1. */
  readonly share: number;
  /** Learnt beside the others, and not counted in an epoch. @default false */
  readonly isReplay?: boolean;
}

/**
 * Steps of rows of several parts. Every step is whole: of `rowsPerStep` rows as many are of each part as its share
 * says: each row in turn is of the part that is furthest behind its share, whichever step that is in.
 * Each part passes through all its rows, in an order of that pass, before one comes again; passes go on from step to
 * step. An epoch of the run is as many steps as have room for one pass over the rows of all parts but replayed ones.
 * A batch holds rows of one part, so the last one of each part of a step may hold padding.
 *
 * @throws E_PLAN_INVALID, E_DATASET_TOO_SMALL
 */
export function createMixedPlan(parts: readonly PlanPart[], options: PlanSettings): TrainingPlan {
  const { seed, rowsPerStep, microBatchSize, gradientGroups, sampling = "random" } = options;
  for (const { rows } of parts) checkOptions({ ...options, rows });
  const epochParts = parts.filter(({ isReplay = false }) => !isReplay);
  const sum = (of: readonly PlanPart[], value: (part: PlanPart) => number): number =>
    of.reduce((total, part) => total + value(part), 0);
  const epochShare = sum(epochParts, ({ share }) => share);
  const epochRows = sum(epochParts, ({ rows }) => rows.numRows);
  const stepsPerEpoch = Math.max(1, Math.ceil(epochRows / (rowsPerStep * epochShare) - 1e-9));
  const totalSteps =
    options.maxSteps !== undefined && options.maxSteps > 0
      ? options.maxSteps
      : Math.ceil((options.numEpochs ?? 3) * stepsPerEpoch);
  const numTerms = Math.max(...parts.map(({ term }) => term)) + 1;
  const rowsBefore = sharedOut(
    parts.map(({ share }) => share),
    rowsPerStep,
  );

  const orders = parts.map(() => new Map<number, Uint32Array>());
  /** The order of a part's rows in a pass over them. */
  const orderOf = (part: number, pass: number): Uint32Array => {
    const known = orders[part] as Map<number, Uint32Array>;
    let order = known.get(pass);
    if (order === undefined) {
      const { numRows } = (parts[part] as PlanPart).rows;
      order =
        sampling === "sequential"
          ? Uint32Array.from({ length: numRows }, (_, row) => row)
          : // Parts of equal size have orders of their own.
            permutation(seed + part * 2 ** 32, pass, numRows);
      if (known.size >= 2) known.delete(Math.min(...known.keys()));
      known.set(pass, order);
    }
    return order;
  };
  /** The rows of a step that are of a part. */
  const rowsOf = (step: number, part: number): Uint32Array => {
    checkIndex("step", step, totalSteps);
    const { numRows } = (parts[part] as PlanPart).rows;
    const [start, end] = [rowsBefore(step)[part] ?? 0, rowsBefore(step + 1)[part] ?? 0];
    return Uint32Array.from({ length: end - start }, (_, index) => {
      const row = start + index;
      return orderOf(part, Math.floor(row / numRows))[row % numRows] ?? 0;
    });
  };
  const perPart = (step: number, of: (rows: TrainingRows, row: number) => number): number[] =>
    parts.map(({ rows }, part) =>
      rowsOf(step, part).reduce((total, row) => total + of(rows, row), 0),
    );
  const add = (total: number, value: number): number => total + value;
  const lossWeights = (step: number): readonly number[] => {
    const weights = Array.from({ length: numTerms }, () => 0);
    for (const [part, weight] of perPart(step, (rows, row) => rows.lossWeight(row)).entries()) {
      const { term } = parts[part] as PlanPart;
      weights[term] = (weights[term] ?? 0) + weight;
    }
    return weights;
  };

  return Object.freeze({
    numRows: epochRows,
    rowsPerStep,
    microBatchSize,
    sequenceLength: Math.max(...parts.map(({ rows }) => rows.sequenceLength)),
    gradientGroups,
    stepsPerEpoch,
    totalSteps,
    rowsIn(step: number): number {
      checkIndex("step", step, totalSteps);
      return rowsPerStep;
    },
    microBatches(step: number, group: number): Batch[] {
      checkIndex("group", group, gradientGroups);
      const slices = parts.flatMap((_, part) => {
        const indices = rowsOf(step, part);
        const count = Math.ceil(indices.length / microBatchSize);
        return Array.from({ length: count }, (__, index) => ({
          part,
          indices: indices.subarray(index * microBatchSize, (index + 1) * microBatchSize),
        }));
      });
      // Each group has one, if only of padding.
      while (slices.length < gradientGroups) slices.push({ part: 0, indices: new Uint32Array(0) });
      const first = Math.floor((group * slices.length) / gradientGroups);
      const end = Math.floor(((group + 1) * slices.length) / gradientGroups);
      return slices.slice(first, end).map(({ part, indices }, index) => {
        const { rows, task } = parts[part] as PlanPart;
        const batch = gatherBatch(rows, indices, microBatchSize);
        return { ...batch, ...(task === 0 ? {} : { task }), coordinates: { step, group, index } };
      });
    },
    lossWeight: (step: number) => lossWeights(step).reduce(add, 0),
    lossWeights,
    tokensIn: (step: number) =>
      perPart(
        step,
        ({ sequenceLength, sequencesPerRow = 1 }) => sequenceLength * sequencesPerRow,
      ).reduce(add, 0),
    realTokens: (step: number) => perPart(step, (rows, row) => rows.lengthOf(row)).reduce(add, 0),
    epochAt(completedSteps: number): number {
      checkIndex("completedSteps", completedSteps, totalSteps + 1);
      return completedSteps / stepsPerEpoch;
    },
  });
}

/**
 * Gives each row of the run in turn to the part that is furthest behind its share.
 *
 * @returns the rows of each part before a step
 */
function sharedOut(
  shares: readonly number[],
  rowsPerStep: number,
): (step: number) => readonly number[] {
  const before: (readonly number[])[] = [shares.map(() => 0)];
  return (step) => {
    while (before.length <= step) {
      const counts = [...(before.at(-1) ?? [])];
      const start = (before.length - 1) * rowsPerStep;
      for (let row = start; row < start + rowsPerStep; row++) {
        let behind = 0;
        let most = Number.NEGATIVE_INFINITY;
        for (const [part, share] of shares.entries()) {
          const lack = share * (row + 1) - (counts[part] ?? 0);
          if (lack > most) [behind, most] = [part, lack];
        }
        counts[behind] = (counts[behind] ?? 0) + 1;
      }
      before.push(counts);
    }
    return before[step] ?? [];
  };
}
