import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";

/** Values of `lr_scheduler_type` whose rate follows a metric of evaluations. */
export const metricScheduleNames = Object.freeze(["reduce_lr_on_plateau", "greedy"] as const);
export type MetricScheduleName = (typeof metricScheduleNames)[number];

/** What such a schedule remembers: JSON, which checkpoints hold. */
export interface MetricScheduleState {
  /** Of the next update. */
  readonly learningRate: number;
  /** The best value so far; null: none counts yet. */
  readonly best: number | null;
  /** Evaluations in a row that were no better, and that were better. */
  readonly numBad: number;
  readonly numGood: number;
  /** Evaluations that are still to be passed over after the rate fell, and after it rose. */
  readonly cooldown: number;
  readonly warmup: number;
  /** Times that the lowest rate may still be asked for before everything begins anew. */
  readonly untilReset: number;
  /** The values that are averaged, where the schedule smooths, and their sum as it grew. */
  readonly window: readonly number[];
  readonly windowSum: number;
}

/** JSON has no value that is no number. */
const orNaN = z
  .number()
  .nullable()
  .transform((value) => value ?? Number.NaN);
const stateSchema = z.object({
  ...{ learningRate: z.number(), best: z.number().nullable(), numBad: z.number() },
  ...{ numGood: z.number(), cooldown: z.number(), warmup: z.number(), untilReset: z.number() },
  ...{ window: z.array(orNaN), windowSum: orNaN },
});

/** What a schedule remembered, out of a checkpoint's JSON; undefined where it is something else. */
export const readScheduleState = (value: unknown): MetricScheduleState | undefined =>
  stateSchema.safeParse(value).data;

/** A schedule whose rate is a function of the evaluations before. */
export interface MetricSchedule {
  /** What it looks at: "loss", or the key of one of the objective's metrics. */
  readonly metric: string;
  /** Whether it takes a smaller value for a better one. */
  readonly isLowerBetter: boolean;
  readonly start: MetricScheduleState;
  /** @param value of the evaluation; one that is no number is no better than any */
  readonly next: (state: MetricScheduleState, value: number) => MetricScheduleState;
}

const notNegative = z.number().min(0);

const comparison = {
  mode: z.enum(["min", "max"]).default("min"),
  threshold_mode: z.enum(["rel", "abs"]),
  threshold: z.number(),
  patience: notNegative.default(10),
  cooldown: notNegative.default(0),
  factor: notNegative.lt(1),
  min_lr: notNegative,
  eps: notNegative.default(1e-8),
};

/** Arguments and defaults of torch.optim.lr_scheduler.ReduceLROnPlateau. */
const plateauArguments = z.strictObject({
  ...comparison,
  threshold_mode: comparison.threshold_mode.default("rel"),
  threshold: comparison.threshold.default(1e-4),
  factor: comparison.factor.default(0.1),
  min_lr: comparison.min_lr.default(0),
});

/** GreedyLR's lowest rate where `min_lr` does not say another, above most rates of fine-tuning. */
export const greedyMinimumRate = 1e-3;

/** Arguments and defaults of transformers.optimization.GreedyLR (arXiv 2512.14527), without its prints. */
const greedyArguments = z.strictObject({
  ...comparison,
  threshold_mode: comparison.threshold_mode.default("abs"),
  threshold: comparison.threshold.default(1e-6),
  // A rise divides by it.
  factor: comparison.factor.positive().default(0.95),
  min_lr: comparison.min_lr.default(greedyMinimumRate),
  max_lr: notNegative.default(1),
  warmup: notNegative.default(0),
  smooth: z.boolean().default(false),
  window_size: z.number().min(1).default(50),
  reset_start: notNegative.default(500),
});

type Plateau = z.output<typeof plateauArguments>;
type Greedy = z.output<typeof greedyArguments>;

/**
 * @param kwargs `lr_scheduler_kwargs`
 * @throws E_CONFIG_INVALID for kwargs that the schedule does not have, or of another type
 */
export function metricSchedule(
  name: MetricScheduleName,
  metric: string,
  { learningRate, kwargs }: { readonly learningRate: number; readonly kwargs: unknown },
): MetricSchedule {
  if (name === "greedy") {
    const settings = parse(name, greedyArguments, kwargs);
    const start = { ...startOf(learningRate), untilReset: settings.reset_start };
    return {
      ...{ metric, isLowerBetter: settings.mode === "min", start },
      next: (state, value) => greedyNext(settings, start, state, value),
    };
  }
  const settings = parse(name, plateauArguments, kwargs);
  return {
    ...{ metric, isLowerBetter: settings.mode === "min", start: startOf(learningRate) },
    next: (state, value) => plateauNext(settings, state, value),
  };
}

const startOf = (learningRate: number): MetricScheduleState => ({
  ...{ learningRate, best: null, numBad: 0, numGood: 0, cooldown: 0, warmup: 0, untilReset: 0 },
  ...{ window: [], windowSum: 0 },
});

function parse<Schema extends z.ZodType>(
  name: MetricScheduleName,
  schema: Schema & { readonly shape: z.ZodRawShape },
  kwargs: unknown,
): z.output<Schema> {
  const parsed = schema.safeParse(kwargs ?? {});
  if (parsed.success) return parsed.data;
  throw new LockstepError("E_CONFIG_INVALID", {
    key: "lr_scheduler_kwargs",
    expected: `${Object.keys(schema.shape).join(", ")} for ${name}, numbers not negative and factor below 1`,
    got: JSON.stringify(kwargs),
    where: "",
  });
}

/** ReduceLROnPlateau.step: the cooldown counts evaluations, better or not. */
function plateauNext(
  settings: Plateau,
  state: MetricScheduleState,
  value: number,
): MetricScheduleState {
  const isBetter = isBetterThan(settings, value, state.best);
  const best = isBetter ? value : state.best;
  const isCooling = state.cooldown > 0;
  const numBad = isBetter || isCooling ? 0 : state.numBad + 1;
  if (numBad > settings.patience) {
    const learningRate = reduced(settings, state.learningRate);
    return { ...state, learningRate, best, numBad: 0, cooldown: settings.cooldown };
  }
  return { ...state, best, numBad, cooldown: isCooling ? state.cooldown - 1 : state.cooldown };
}

/** GreedyLR.step: while it cools down or warms up values are averaged, and not compared. */
function greedyNext(
  settings: Greedy,
  start: MetricScheduleState,
  before: MetricScheduleState,
  value: number,
): MetricScheduleState {
  const [state, current] = settings.smooth ? smoothed(settings, before, value) : [before, value];
  if (state.cooldown > 0) {
    return { ...state, cooldown: state.cooldown - 1, numBad: 0, numGood: 0 };
  }
  if (state.warmup > 0) return { ...state, warmup: state.warmup - 1, numBad: 0, numGood: 0 };
  const isBetter = isBetterThan(settings, current, state.best);
  const counted = isBetter
    ? { ...state, best: current, numBad: 0, numGood: state.numGood + 1 }
    : { ...state, numBad: state.numBad + 1, numGood: 0 };
  if (counted.numGood > settings.patience) {
    const raised = Math.min(state.learningRate / settings.factor, settings.max_lr);
    const isRaised = raised - state.learningRate > settings.eps;
    return {
      ...{ ...counted, numGood: 0, warmup: settings.warmup, untilReset: settings.reset_start },
      learningRate: isRaised ? raised : state.learningRate,
    };
  }
  if (counted.numBad <= settings.patience) return counted;
  const learningRate = reduced(settings, state.learningRate);
  const isAtMinimum = learningRate <= settings.min_lr;
  const untilReset = isAtMinimum ? counted.untilReset - 1 : counted.untilReset;
  // A reset ends with the cooldown that its fall begins, as in transformers.
  const fallen = { numBad: 0, cooldown: settings.cooldown };
  if (isAtMinimum && untilReset <= 0) return { ...start, ...fallen };
  return { ...counted, ...fallen, learningRate, untilReset };
}

/** The average of the last `window_size` values, by a sum that grows and shrinks with them. */
function smoothed(
  settings: Greedy,
  state: MetricScheduleState,
  value: number,
): [MetricScheduleState, number] {
  let window = [...state.window, value];
  let windowSum = state.windowSum + value;
  if (window.length > settings.window_size) {
    windowSum -= window[0] ?? 0;
    window = window.slice(1);
  }
  return [{ ...state, window, windowSum }, windowSum / window.length];
}

function reduced({ factor, min_lr: minimum, eps }: Plateau | Greedy, learningRate: number): number {
  const lower = Math.max(learningRate * factor, minimum);
  return learningRate - lower > eps ? lower : learningRate;
}

function isBetterThan(
  { mode, threshold_mode: thresholdMode, threshold }: Plateau | Greedy,
  value: number,
  bestSoFar: number | null,
): boolean {
  if (mode === "min") {
    const best = bestSoFar ?? Number.POSITIVE_INFINITY;
    return value < (thresholdMode === "rel" ? best * (1 - threshold) : best - threshold);
  }
  const best = bestSoFar ?? Number.NEGATIVE_INFINITY;
  return value > (thresholdMode === "rel" ? best * (threshold + 1) : best + threshold);
}
