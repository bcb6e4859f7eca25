import type { RunObjective } from "#lib/core/events";
import type { ObjectiveJob } from "#lib/core/job";
import { objectiveOf, objectives } from "./index.js";
import type { Metric, Objective } from "./objective.js";

/** What has metrics: an objective, or the tasks of a job together. */
type Metered = Pick<Objective, "metrics">;

/** What files call a metric. */
export const metricName = ({ key }: Pick<Metric, "key">): string => `eval_${key}`;

/** Whether the history has it beside the loss: others follow from the loss. */
export const isLogged = ({ ofLoss }: Metric): boolean => ofLoss === undefined;

/** The metrics of all objectives, one a key. */
export function allMetrics(): readonly Metric[] {
  const byKey = new Map<string, Metric>();
  for (const { metrics } of objectives) {
    for (const metric of metrics) byKey.set(metric.key, metric);
  }
  return [...byKey.values()];
}

/** Names under `metric_for_best_model`, with and without `eval_`. */
export const comparableMetrics = (): readonly string[] =>
  [
    "loss",
    ...allMetrics()
      .filter(isLogged)
      .map(({ key }) => key),
  ].flatMap((key) => [key, metricName({ key })]);

/** Whether the larger value of a metric is the better one, by its name without `eval_`; not of a loss. */
export const isGreaterBetter = (name: string): boolean =>
  allMetrics().some(({ key, greaterIsBetter }) => key === name && greaterIsBetter);

/** The metric of an objective that `metric_for_best_model` names; undefined for the loss or another's. */
export const metricNamed = ({ metrics }: Metered, name: string): Metric | undefined =>
  metrics.find((metric) => isLogged(metric) && metric.key === name.replace(/^eval_/, ""));

/**
 * An evaluation's figures beside its loss, by their keys.
 *
 * @param scores what a scorer has, or the history
 */
export const metricsOf = (
  { metrics }: Metered,
  loss: number,
  scores: Readonly<Record<string, number>> = {},
): Record<string, number> =>
  Object.fromEntries(
    metrics.flatMap(({ key, ofLoss }) => {
      const value = ofLoss === undefined ? scores[key] : ofLoss(loss);
      return value === undefined ? [] : [[key, value]];
    }),
  );

/** An evaluation's metrics as the history has them, by their names there. */
export const loggedMetrics = (
  { metrics }: Metered,
  values: Readonly<Record<string, number>>,
): Record<string, number> =>
  Object.fromEntries(
    metrics.filter(isLogged).flatMap(({ key }) => {
      const value = values[key];
      return value === undefined ? [] : [[metricName({ key }), value]];
    }),
  );

/** The metrics of an evaluation by their keys, from its entry in the history. */
export const metricsOfEntry = (
  objective: Metered,
  entry: Readonly<Record<string, number | null>>,
): Record<string, number> => {
  const logged = objective.metrics.filter(isLogged).flatMap(({ key }) => {
    const value = entry[metricName({ key })];
    return typeof value === "number" ? [[key, value] as const] : [];
  });
  return metricsOf(objective, entry["eval_loss"] ?? Number.NaN, Object.fromEntries(logged));
};

/** What displays and pages are told of an objective. @param metered whose figures evaluations have */
export function describedObjective(
  job: ObjectiveJob,
  metered: Metered & { readonly units?: string } = { metrics: objectiveOf(job.kind).metrics },
): RunObjective {
  const { kind, unit } = objectiveOf(job.kind);
  return {
    kind,
    unit: metered.units ?? unit(job),
    metrics: metered.metrics.map(({ key, label, digits, isOfSteps }) => ({
      ...{ key, label, digits },
      ...(isOfSteps === true ? { isOfSteps } : {}),
    })),
  };
}
