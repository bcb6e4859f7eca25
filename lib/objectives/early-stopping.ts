/** When a run is to end before its last step, as transformers' EarlyStoppingCallback has it. */
export interface EarlyStopping {
  /** Evaluations in a row without an improvement. */
  readonly patience: number;
  /** By how much more than this a value has to be better to be an improvement. */
  readonly threshold: number;
}

/** JSON, which checkpoints hold. */
export interface EarlyStoppingState {
  /** Evaluations in a row without an improvement. */
  readonly counter: number;
  /** Evaluations that were compared. */
  readonly numEvaluations: number;
}

/** How evaluations are compared. */
export interface BestRule {
  /** "loss", or the key of one of the objective's metrics. */
  readonly metric: string;
  readonly greaterIsBetter: boolean;
}

export interface BestEvaluation {
  /** Its loss or score. */
  readonly metric: number;
  /** Steps completed then. */
  readonly step: number;
}

export const noEvaluations: EarlyStoppingState = Object.freeze({ counter: 0, numEvaluations: 0 });

type Direction = Pick<BestRule, "greaterIsBetter">;

/** Whether a value is better than the best before; without one, than what every number is better than. */
export const isBetter = (
  value: number,
  best: number | undefined,
  { greaterIsBetter }: Direction,
): boolean =>
  greaterIsBetter
    ? value > (best ?? Number.NEGATIVE_INFINITY)
    : value < (best ?? Number.POSITIVE_INFINITY);

/**
 * The state after an evaluation. The first one is an improvement whatever it is, a NaN too; any better value
 * becomes the best, also one that is not better by more than the threshold and is counted.
 *
 * @param best of the evaluations before
 */
export function afterEvaluation(
  state: EarlyStoppingState,
  value: number,
  best: number | undefined,
  { threshold, greaterIsBetter }: Pick<EarlyStopping, "threshold"> & Direction,
): EarlyStoppingState {
  const isFirst = best === undefined && state.numEvaluations === 0;
  const isImproved =
    isFirst ||
    (isBetter(value, best, { greaterIsBetter }) &&
      (best === undefined || Math.abs(value - best) > threshold));
  return {
    counter: isImproved ? 0 : state.counter + 1,
    numEvaluations: state.numEvaluations + 1,
  };
}

/** Whether a run ends here. */
export const hasStopped = (
  rule: EarlyStopping | undefined,
  state: EarlyStoppingState | undefined,
): boolean => rule !== undefined && state !== undefined && state.counter >= rule.patience;

/** Why a run ended, for a person. @param what is compared, as files name it */
export function describeStop(
  { threshold }: EarlyStopping,
  { counter }: EarlyStoppingState,
  what: string,
  best: BestEvaluation | undefined,
): string {
  const margin = threshold === 0 ? "" : ` by more than ${threshold}`;
  const evaluations = counter === 1 ? "the last evaluation" : `the last ${counter} evaluations`;
  const was = counter === 1 ? "was" : "were";
  const reached =
    best === undefined ? "" : `; the best ${what} is ${figure(best.metric)}, of step ${best.step}`;
  return `${evaluations} ${was} not better than the best before${margin} (early_stopping_patience)${reached}`;
}

const figure = (value: number): string => String(Number(value.toPrecision(5)));

/** What checkpoints hold of it; undefined where it is something else. */
export function readEarlyStoppingState(value: unknown): EarlyStoppingState | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { counter, numEvaluations } = value as Readonly<Record<string, unknown>>;
  const isCount = (count: unknown): count is number =>
    Number.isSafeInteger(count) && Number(count) >= 0;
  return isCount(counter) && isCount(numEvaluations) ? { counter, numEvaluations } : undefined;
}
