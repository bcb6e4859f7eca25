import type { Metrics, RunObjective } from "./events.js";

/** 1234567 -> "1,234,567", whatever the locale of the machine. */
export function withCommas(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** "1 row", "1,200 rows". @param noun of a regular plural */
export const counted = (count: number, noun: string): string =>
  `${withCommas(count)} ${noun}${count === 1 ? "" : "s"}`;

/** 134515008 -> "134.5M"; three or four significant digits. */
export function compactCount(value: number): string {
  for (const [unit, size] of [
    ["T", 1e12],
    ["B", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ] as const) {
    if (value >= size) return `${(value / size).toFixed(1)}${unit}`;
  }
  return String(Math.round(value));
}

/** Decimal units, as disks and networks are sold: 1.95 GB. */
export function formatBytes(bytes: number): string {
  for (const [unit, size] of [
    ["TB", 1e12],
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${Math.round(bytes)} B`;
}

/** 0.31 s, 9.4 s, 42 s, 2 min 31 s, 1 h 05 min. */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 1) return `${seconds.toFixed(2)} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  }
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** 8.1e-5 keeps its digits where toFixed would show 0.0001. */
export function formatRate(learningRate: number): string {
  return learningRate === 0 ? "0" : learningRate.toExponential(2);
}

/** Losses, norms: four digits after the point, or the word itself when not finite. */
export function formatFigure(value: number, digits = 4): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1e6 ? value.toExponential(3) : value.toFixed(digits);
}

/** A float32 number with the digits that it is told by, six at most: 3.5, -0.0123457, 1.25e-9. */
export const shownNumber = (value: number): string => String(Number(value.toPrecision(6)));

export function formatPercent(ratio: number): string {
  return `${Math.round(ratio * 100)} %`;
}

/** Names and figures of an evaluation beside its loss, as the objective shows them. */
export const evaluationFigures = (
  objective: RunObjective | undefined,
  values: Metrics,
): [string, string][] =>
  (objective?.metrics ?? []).flatMap(({ key, label, digits }): [string, string][] => {
    const value = values[key];
    return value === undefined ? [] : [[label, formatFigure(value, digits)]];
  });

/** Those of a step's figures that a line of it tells, with their labels. */
export const stepFigures = (
  objective: RunObjective | undefined,
  values: Metrics = {},
): [string, string][] =>
  (objective?.metrics ?? []).flatMap(({ key, label, digits, isOfSteps }): [string, string][] => {
    const value = values[key];
    return value === undefined || isOfSteps !== true ? [] : [[label, formatFigure(value, digits)]];
  });

/** How far the validation loss is above the training loss since the evaluation before, where steps were made. */
export const gapFigures = ({
  loss,
  trainLoss,
}: {
  readonly loss: number;
  readonly trainLoss?: number;
}): [string, string][] => {
  if (trainLoss === undefined) return [];
  const gap = loss - trainLoss;
  const sign = gap > 0 ? "+" : "";
  return [
    ["training loss", formatFigure(trainLoss)],
    ["gap", `${sign}${formatFigure(gap)}`],
  ];
};

/** What the evaluation was over. */
export const evaluationSize = (objective: RunObjective | undefined, weight: number): string =>
  `${withCommas(weight)} ${objective?.unit ?? "token"}s`;

/** What a person is told whose run computes in bfloat16 on a device without instructions for it. */
const slowBf16 = (slowdown: number): string =>
  `bfloat16 products take ${slowdown.toFixed(2)} times the time of float32 on this processor, which has no ` +
  "instructions for them; bf16: auto would choose float32";

/** @param slowdown 0: not measured */
const slowFp16 = (slowdown: number): string =>
  "a processor computes float16 products as those of float32, rounded, which " +
  (slowdown === 0
    ? "makes nothing faster"
    : `takes ${slowdown.toFixed(2)} times the time of float32`) +
  "; fp16: auto would choose float32";

/** Of a step that made no update; in float16 it may only be that the loss scale is too large yet. */
export const skippedStep = ({
  step,
  gradientNorm,
  lossScale,
}: {
  readonly step: number;
  readonly gradientNorm: number;
  readonly lossScale?: number;
}): string[] => {
  if (Number.isFinite(gradientNorm)) return [];
  const scale = lossScale === undefined ? "" : ` with a loss scale of ${lossScale}`;
  return [`step ${step} made no update: its gradient is not finite${scale}`];
};

/** What the run's half type costs on the device of a worker that has joined. */
export const slowProducts = ({
  bf16Slowdown,
  fp16Slowdown,
}: {
  readonly bf16Slowdown?: number;
  readonly fp16Slowdown?: number;
}): string[] => [
  ...(bf16Slowdown === undefined ? [] : [slowBf16(bf16Slowdown)]),
  ...(fp16Slowdown === undefined ? [] : [slowFp16(fp16Slowdown)]),
];
