import { counted, formatFigure, formatSeconds } from "./format.js";

/** The loss of general rows that a run does not learn, nats a token. */
export interface GeneralLoss {
  /** Steps completed. */
  readonly step: number;
  readonly loss: number;
  /** Before the first step; absent for that figure itself. */
  readonly before?: number;
}

/** What the loss of general rows rose by since before training; undefined before the first step. */
export const forgottenOf = ({ loss, before }: GeneralLoss): number | undefined =>
  before === undefined ? undefined : loss - before;

/** "general loss 3.4100 (perplexity 30.27)", and what it was before: "..., 3.2100 before: +0.2000 forgotten". */
export function generalLossWords(figure: GeneralLoss): string {
  const { loss, before } = figure;
  const now = `general loss ${formatFigure(loss)} (perplexity ${formatFigure(Math.exp(loss), 2)})`;
  const forgotten = forgottenOf(figure);
  if (before === undefined || forgotten === undefined) return now;
  return `${now}, ${formatFigure(before)} before: ${forgottenWords(forgotten)}`;
}

export function forgottenWords(forgotten: number): string {
  if (!(forgotten <= 0)) return `+${formatFigure(forgotten)} forgotten`;
  return `${formatFigure(forgotten)}, nothing forgotten`;
}

/** "Fisher information of 256 general rows measured in 12 s: mean squared gradient 1.234e-3". */
export const fisherWords = (measured: {
  readonly numRows: number;
  readonly meanSquare: number;
  readonly seconds: number;
}): string =>
  `Fisher information of ${counted(measured.numRows, "general row")} measured in ${formatSeconds(measured.seconds)}: mean squared gradient ${measured.meanSquare.toExponential(3)}`;

/** EWC's penalty over the loss of the task, which does not have it in it. */
export const ewcRatio = ({ ewcPenalty = 0, loss }: EwcStep): number => ewcPenalty / loss;

interface EwcStep {
  readonly loss: number;
  readonly ewcPenalty?: number;
}

/** "ewc 0.0123 (0.5% of the loss)", of a step with a penalty. */
export const ewcFigures = (step: EwcStep): readonly string[] =>
  step.ewcPenalty === undefined
    ? []
    : [`ewc ${formatFigure(step.ewcPenalty)} (${(100 * ewcRatio(step)).toFixed(1)}% of the loss)`];
