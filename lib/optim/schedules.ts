import { LockstepError } from "#lib/core/errors/index";

/**
 * Values of `lr_scheduler_type` that follow from the step number alone: Hugging Face's, and last one that it
 * does not have.
 */
export const scheduleNames = Object.freeze([
  "linear",
  "cosine",
  "cosine_with_restarts",
  "polynomial",
  "constant",
  "constant_with_warmup",
  "inverse_sqrt",
  "cosine_with_min_lr",
  "cosine_warmup_with_min_lr",
  "warmup_stable_decay",
  "slanted_triangular",
] as const);
export type ScheduleName = (typeof scheduleNames)[number];

/** Keys and units as in Hugging Face's `lr_scheduler_kwargs`; a schedule refuses those of others. */
interface ScheduleKwargs {
  readonly num_cycles?: number;
  readonly power?: number;
  readonly lr_end?: number;
  readonly timescale?: number;
  readonly min_lr?: number;
  readonly min_lr_rate?: number;
  readonly warmup_lr_rate?: number;
  readonly num_decay_steps?: number;
  readonly num_stable_steps?: number;
  readonly min_lr_ratio?: number;
  readonly warmup_type?: "linear" | "cosine" | "1-sqrt";
  readonly decay_type?: "linear" | "cosine" | "1-sqrt";
  readonly cut_frac?: number;
  readonly ratio?: number;
}

export interface ScheduleContext {
  readonly baseLearningRate: number;
  readonly warmupSteps: number;
  readonly totalSteps: number;
  readonly kwargs?: ScheduleKwargs;
}

type Multiplier = (t: number, context: ScheduleContext, kwargs: ScheduleKwargs) => number;

// Symbols as in the formulas: t completed updates, W warm-up steps, T total steps.

const warmup = (t: number, warmupSteps: number): number => t / Math.max(1, warmupSteps);

/** 0 at the end of warm-up, 1 at the end of training. */
const progressOf = (t: number, { warmupSteps, totalSteps }: ScheduleContext): number =>
  (t - warmupSteps) / Math.max(1, totalSteps - warmupSteps);

/** Half a cosine wave per half cycle: 1 at p = 0, 0 at p = 1 with half a cycle. */
const cosineWave = (progress: number, numCycles: number): number =>
  0.5 * (1 + Math.cos(Math.PI * numCycles * 2 * progress));

const between = (factor: number, minimum: number): number => factor * (1 - minimum) + minimum;

function minimumRate(name: ScheduleName, context: ScheduleContext, kwargs: ScheduleKwargs): number {
  if ((kwargs.min_lr === undefined) === (kwargs.min_lr_rate === undefined)) {
    throw invalid(`exactly one of min_lr and min_lr_rate for ${name}`, kwargs);
  }
  return kwargs.min_lr_rate ?? (kwargs.min_lr as number) / context.baseLearningRate;
}

const rampShapes = Object.freeze({
  linear: (progress: number) => progress,
  cosine: (progress: number) => 0.5 * (1 - Math.cos(Math.PI * progress)),
  "1-sqrt": (progress: number) => 1 - Math.sqrt(1 - progress),
});

const decayShapes = Object.freeze({
  linear: (progress: number) => 1 - progress,
  cosine: (progress: number, numCycles: number) => cosineWave(progress, numCycles),
  "1-sqrt": (progress: number) => 1 - Math.sqrt(progress),
});

const warmupStableDecay: Multiplier = (t, { warmupSteps, totalSteps }, kwargs) => {
  const decaySteps = kwargs.num_decay_steps;
  if (decaySteps === undefined) throw invalid("num_decay_steps for warmup_stable_decay", kwargs);
  const minimum = kwargs.min_lr_ratio ?? 0;
  const stableSteps = kwargs.num_stable_steps ?? totalSteps - warmupSteps - decaySteps;
  if (t < warmupSteps) {
    const ramp = rampShapes[kwargs.warmup_type ?? "linear"](warmup(t, warmupSteps));
    return Math.max(0, between(ramp, minimum));
  }
  const decayed = t - warmupSteps - stableSteps;
  if (decayed < 0) return 1;
  if (decayed >= decaySteps) return minimum;
  const shape = decayShapes[kwargs.decay_type ?? "cosine"];
  const factor = shape(decayed / Math.max(1, decaySteps), kwargs.num_cycles ?? 0.5);
  return Math.max(0, between(factor, minimum));
};

/**
 * ULMFiT's triangle (Howard and Ruder 2018, arXiv 1801.06146, equation 3): up during the share `cut_frac` of all
 * updates, down in the others, from the rate divided by `ratio` and back to it.
 */
const slantedTriangular: Multiplier = (t, { warmupSteps, totalSteps }, kwargs) => {
  const { cut_frac: cutFraction = 0.1, ratio = 32 } = kwargs;
  if (warmupSteps > 0) {
    const reason = "slanted_triangular rises by itself, during its cut_frac";
    throw new LockstepError("E_CONFIG_CONFLICT", {
      ...{ keys: "warmup_steps and lr_scheduler_type", reason },
    });
  }
  if (!(cutFraction > 0 && cutFraction < 1 && ratio >= 1)) {
    throw invalid("cut_frac between 0 and 1, and ratio of at least 1", kwargs);
  }
  const cut = Math.max(1, Math.floor(totalSteps * cutFraction));
  // The paper divides by cut * (1 / cut_frac - 1): the same where cut is not rounded, else below 0 at the end.
  const height = t < cut ? t / cut : Math.max(0, 1 - (t - cut) / Math.max(1, totalSteps - cut));
  return (1 + height * (ratio - 1)) / ratio;
};

/** Formulas of transformers' optimization.py, and of papers. */
const multipliers: Readonly<
  Record<
    ScheduleName,
    { readonly keys: readonly (keyof ScheduleKwargs)[]; readonly at: Multiplier }
  >
> = {
  constant: { keys: [], at: () => 1 },
  constant_with_warmup: {
    keys: [],
    at: (t, { warmupSteps }) => (t < warmupSteps ? warmup(t, warmupSteps) : 1),
  },
  linear: {
    keys: [],
    at: (t, { warmupSteps, totalSteps }) =>
      t < warmupSteps
        ? warmup(t, warmupSteps)
        : Math.max(0, (totalSteps - t) / Math.max(1, totalSteps - warmupSteps)),
  },
  cosine: {
    keys: ["num_cycles"],
    at: (t, context, { num_cycles: numCycles = 0.5 }) =>
      t < context.warmupSteps
        ? warmup(t, context.warmupSteps)
        : Math.max(0, cosineWave(progressOf(t, context), numCycles)),
  },
  cosine_with_restarts: {
    keys: ["num_cycles"],
    at: (t, context, { num_cycles: numCycles = 1 }) => {
      if (t < context.warmupSteps) return warmup(t, context.warmupSteps);
      const progress = progressOf(t, context);
      return progress >= 1 ? 0 : Math.max(0, cosineWave((numCycles * progress) % 1, 0.5));
    },
  },
  polynomial: {
    keys: ["lr_end", "power"],
    at: (t, context, { lr_end: lrEnd = 1e-7, power = 1 }) => {
      const { baseLearningRate, warmupSteps, totalSteps } = context;
      if (lrEnd >= baseLearningRate) {
        throw invalid(`lr_end below the learning rate of ${baseLearningRate}`, { lr_end: lrEnd });
      }
      if (t < warmupSteps) return warmup(t, warmupSteps);
      if (t > totalSteps) return lrEnd / baseLearningRate;
      const remaining = 1 - (t - warmupSteps) / (totalSteps - warmupSteps || 1);
      return ((baseLearningRate - lrEnd) * remaining ** power + lrEnd) / baseLearningRate;
    },
  },
  inverse_sqrt: {
    keys: ["timescale"],
    at: (t, { warmupSteps }, kwargs) => {
      if (t < warmupSteps) return warmup(t, warmupSteps);
      const timescale = kwargs.timescale ?? (warmupSteps || 10_000);
      return 1 / Math.sqrt((t + timescale - warmupSteps) / timescale);
    },
  },
  cosine_with_min_lr: {
    keys: ["num_cycles", "min_lr", "min_lr_rate"],
    at: (t, context, kwargs) => {
      const minimum = minimumRate("cosine_with_min_lr", context, kwargs);
      if (t < context.warmupSteps) return warmup(t, context.warmupSteps);
      const factor = cosineWave(progressOf(t, context), kwargs.num_cycles ?? 0.5);
      return Math.max(0, between(factor, minimum));
    },
  },
  cosine_warmup_with_min_lr: {
    keys: ["num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"],
    // Counts the update being made, not those completed: its first rate is above 0.
    at: (t, context, kwargs) => {
      const { warmupSteps } = context;
      const minimum = minimumRate("cosine_warmup_with_min_lr", context, kwargs);
      if (t < warmupSteps) {
        const start = kwargs.warmup_lr_rate;
        if (start === undefined) return (t + 1) / Math.max(1, warmupSteps);
        return start + ((1 - start) * t) / Math.max(1, warmupSteps - 1);
      }
      const factor = cosineWave(progressOf(t + 1, context), kwargs.num_cycles ?? 0.5);
      return Math.max(0, between(factor, minimum));
    },
  },
  warmup_stable_decay: {
    keys: [
      "num_decay_steps",
      "num_stable_steps",
      "min_lr_ratio",
      "num_cycles",
      "warmup_type",
      "decay_type",
    ],
    at: warmupStableDecay,
  },
  slanted_triangular: { keys: ["cut_frac", "ratio"], at: slantedTriangular },
};

/**
 * The learning rate of the next update.
 *
 * @param completedUpdates optimizer updates made so far; the first update has 0
 * @throws E_CONFIG_INVALID for kwargs that the schedule does not have or that it needs and lacks
 */
export function learningRateAt(
  schedule: ScheduleName,
  context: ScheduleContext,
  completedUpdates: number,
): number {
  const { keys, at } = multipliers[schedule];
  const kwargs = context.kwargs ?? {};
  for (const key of Object.keys(kwargs)) {
    if (!keys.includes(key as keyof ScheduleKwargs)) {
      throw invalid(`${keys.length === 0 ? "empty" : keys.join(", ")} for ${schedule}`, kwargs);
    }
  }
  checkTypes(kwargs);
  return context.baseLearningRate * at(completedUpdates, context, kwargs);
}

/** Whether it is a number of updates, of which fewer than none would have no effect. */
const isCount = (key: string): boolean => key === "num_decay_steps" || key === "num_stable_steps";

/** @throws E_CONFIG_INVALID for words where numbers belong, for fewer than no updates, and for shapes that there are none of */
function checkTypes(kwargs: ScheduleKwargs): void {
  for (const [key, value] of Object.entries(kwargs)) {
    const shapes =
      key === "warmup_type" ? rampShapes : key === "decay_type" ? decayShapes : undefined;
    const least = isCount(key) ? 0 : Number.NEGATIVE_INFINITY;
    const isRight =
      shapes === undefined
        ? Number.isFinite(value) && value >= least
        : Object.hasOwn(shapes, value);
    if (isRight) continue;
    const number = isCount(key) ? "a number of at least 0" : "a number";
    const expected = shapes === undefined ? number : Object.keys(shapes).join(", ");
    throw invalid(`${expected} as ${key}`, kwargs);
  }
}

function invalid(expected: string, kwargs: ScheduleKwargs): LockstepError {
  return new LockstepError("E_CONFIG_INVALID", {
    key: "lr_scheduler_kwargs",
    expected,
    got: JSON.stringify(kwargs),
    where: "",
  });
}
