import type { SequenceClassifier } from "#lib/models/index";
import type { ClassScore } from "./class-score.js";

/**
 * What transformers' text-classification pipeline makes of logits, the largest score first: softmax
 * over classes that exclude each other, sigmoid where each may hold, nothing for a regression, whose numbers
 * stay in the order of its outputs.
 *
 * @param labels names of the classes, by number
 */
export function classScores(
  { problemType, numLabels }: Pick<SequenceClassifier, "problemType" | "numLabels">,
  labels: readonly string[],
  logits: ArrayLike<number>,
): ClassScore[] {
  const values = Array.from(logits);
  const scores =
    problemType === "regression"
      ? values
      : problemType === "multi_label_classification" || numLabels === 1
        ? values.map((value) => 1 / (1 + Math.exp(-value)))
        : softmax(values);
  const named = scores.map((score, number) => ({
    label: labels[number] ?? `LABEL_${number}`,
    score,
  }));
  return problemType === "regression" ? named : named.sort((a, b) => b.score - a.score);
}

function softmax(values: readonly number[]): number[] {
  const largest = Math.max(...values);
  const exponentials = values.map((value) => Math.exp(value - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}
