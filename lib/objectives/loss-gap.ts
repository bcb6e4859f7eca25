import type { TaskFigures } from "#lib/core/events";

/** No task of the configuration has this name. */
const replayedTask = "general";

/** What is kept to compare the losses of training and of validation: JSON, which checkpoints hold. */
export interface LossGapState {
  /** Of the steps since the last evaluation that have rows of every task, and how many they are. */
  readonly lossSum: number;
  readonly numSteps: number;
  /** The least validation loss so far, with the mean training loss before it; null: none yet. */
  readonly best: {
    readonly step: number;
    readonly loss: number;
    readonly trainLoss: number;
  } | null;
  /** Whether it was told that the validation loss rises, and no better one came since. */
  readonly isTold: boolean;
}

/** An evaluation beside the training before it. */
export interface LossGap {
  /** Mean loss of the steps since the evaluation before. */
  readonly trainLoss: number;
  /** What the model begins to learn by heart, for a person: told once an onset. */
  readonly warning?: string;
}

export const noLossGap: LossGapState = Object.freeze({
  ...{ lossSum: 0, numSteps: 0, best: null, isTold: false },
});

/**
 * Adds a step's loss without that of general rows that have a mean of their own, which no evaluation has. A step
 * without a row of some other task does not count: its loss is the sum of the others alone, and would look as if it
 * had fallen.
 */
export function withStep(
  state: LossGapState,
  loss: number,
  tasks: readonly TaskFigures[] = [],
): LossGapState {
  let compared = loss;
  for (const { name, weight, loss: ofTask } of tasks) {
    if (name === replayedTask) compared -= ofTask === undefined ? 0 : weight * ofTask;
    else if (ofTask === undefined) return state;
  }
  return { ...state, lossSum: state.lossSum + compared, numSteps: state.numSteps + 1 };
}

/**
 * Overfitting begins where the validation loss is above its least value so far while the mean training loss since the
 * evaluation before is below that which came before the least one. It is over when a validation loss is less than all
 * before. Losses that are not finite are compared with nothing.
 *
 * @param advice what a person can do
 * @returns no gap without a step that counts since the evaluation before
 */
export function withEvaluation(
  state: LossGapState,
  { step, loss }: { readonly step: number; readonly loss: number },
  advice: string,
): { readonly state: LossGapState; readonly gap?: LossGap } {
  const trainLoss = state.lossSum / state.numSteps;
  const next = { ...state, lossSum: 0, numSteps: 0 };
  if (!Number.isFinite(trainLoss)) return { state: next };
  if (!Number.isFinite(loss)) return { state: next, gap: { trainLoss } };
  const { best } = state;
  if (best === null || loss < best.loss) {
    return {
      state: { ...next, best: { step, loss, trainLoss }, isTold: false },
      gap: { trainLoss },
    };
  }
  if (state.isTold || loss === best.loss || trainLoss >= best.trainLoss) {
    return { state: next, gap: { trainLoss } };
  }
  const four = (value: number): string => value.toFixed(4);
  const warning =
    `warning: overfitting since step ${best.step}: the validation loss rises, ${four(best.loss)} to ${four(loss)}, ` +
    `while the training loss falls, ${four(best.trainLoss)} to ${four(trainLoss)}: ` +
    `the model learns the training rows by heart${advice}`;
  return { state: { ...next, isTold: true }, gap: { trainLoss, warning } };
}

/** The gap in an entry of the history, beside `eval_loss`. */
export const gapFigures = (loss: number, gap: LossGap | undefined): Record<string, number> =>
  gap === undefined || !Number.isFinite(loss)
    ? {}
    : { eval_train_loss: gap.trainLoss, eval_loss_gap: loss - gap.trainLoss };

/** What checkpoints hold of it, where JSON has null for a sum that is not finite; undefined where it is something else. */
export function readLossGapState(value: unknown): LossGapState | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { lossSum, numSteps, best, isTold } = value as Readonly<Record<string, unknown>>;
  if (lossSum !== null && typeof lossSum !== "number") return undefined;
  if (!Number.isSafeInteger(numSteps) || Number(numSteps) < 0) return undefined;
  if (typeof isTold !== "boolean" || typeof best !== "object") return undefined;
  const kept = { lossSum: lossSum ?? Number.NaN, numSteps: Number(numSteps), isTold };
  if (best === null) return { ...kept, best };
  const { step, loss, trainLoss } = best as Readonly<Record<string, unknown>>;
  if (!Number.isSafeInteger(step) || typeof loss !== "number" || typeof trainLoss !== "number") {
    return undefined;
  }
  return { ...kept, best: { step: Number(step), loss, trainLoss } };
}
