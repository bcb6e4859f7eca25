import { defaultOf, objectiveKeys, type ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { TaskedJob } from "#lib/core/job";
import type { LabelReader } from "#lib/core/labels";
import { type Metric, type Objective, objectiveOf, objectives } from "#lib/objectives/index";
import { metricNamed } from "#lib/objectives/metrics";
import { jobMetrics } from "#lib/objectives/task-metrics";

/** An objective of rows with a label. */
type LabelledObjective = Objective & Required<Pick<Objective, "labels">>;

const suits = (labels: LabelReader, first: unknown): boolean =>
  labels.suits?.(first) ?? !("problem" in labels.read(first));

/**
 * What a run of rows with a label learns: what the configuration says, else what the model's checkpoint is
 * of, else the first that suits such a label.
 *
 * @param problemType of a model that is a classifier already
 * @param first label of the data set
 * @throws E_CONFIG_CONFLICT
 */
export function labelledObjective(
  { objective: asked }: ResolvedConfig,
  problemType: string | undefined,
  first: unknown,
): LabelledObjective {
  const all: readonly Objective[] = objectives;
  const labelled = all.filter((one): one is LabelledObjective => one.labels !== undefined);
  const wanted = asked === "auto" ? problemType : asked;
  const found =
    labelled.find(({ kind }) => kind === wanted) ??
    (wanted === undefined
      ? (labelled.find(({ labels }) => suits(labels, first)) ?? labelled[0])
      : undefined);
  if (found !== undefined) return found;
  if (asked === "auto") {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "model_name_or_path and objective",
      reason: `the model's problem_type is ${wanted}, which no run learns; another one makes such a classifier of it: ${labelled.map(({ kind }) => kind).join(" or ")}`,
    });
  }
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "objective and dataset",
    reason: objectiveOf(asked).comparesPairs
      ? `${asked} ${comparesAnswers}, and the rows have a label`
      : `${asked} reads no label, and the rows have one; dataset_format: text trains on their texts`,
  });
}

const comparesAnswers = "compares a chosen and a rejected answer of a row";

/** What a run of rows with a chosen and a rejected answer learns. @throws E_CONFIG_CONFLICT */
export function pairObjective({ objective: asked }: ResolvedConfig): Objective {
  const all: readonly Objective[] = objectives;
  const comparing = all.filter(({ comparesPairs }) => comparesPairs === true);
  const found = comparing.find(({ kind }) => asked === "auto" || kind === asked);
  if (found !== undefined) return found;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "objective and dataset",
    reason: `rows have a chosen and a rejected answer, which ${comparing.map(({ kind }) => kind).join(" or ")} compares, and ${asked} does not; columns: {prompt: prompt, completion: chosen} trains on the chosen ones alone`,
  });
}

/** @throws E_CONFIG_CONFLICT for a key that would change nothing of what is learnt */
export function checkObjectiveKeys(config: ResolvedConfig, { kind, fields }: Objective): void {
  for (const key of objectiveKeys) {
    if (key in fields || config[key] === defaultOf(key)) continue;
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: `${key} and objective`,
      reason: `${kind} is what is learnt, and ${key} has no meaning for its loss`,
    });
  }
}

/** What a person is told where a classifier is made to learn something else than it did. */
export const changedProblem = (before: string | undefined, kind: string): readonly string[] =>
  before === undefined || before === kind
    ? []
    : [`the model's problem_type is ${before}, and becomes ${kind} (objective)`];

/**
 * The same where its head, which has as many classes as the data, goes on under other names.
 *
 * @param before names of the model's classes
 */
export function changedClasses(before: readonly string[], now: readonly string[]): string[] {
  const isUnnamed = before.every((name, number) => name === `LABEL_${number}`);
  const isSame = before.every((name, number) => name === now[number]);
  if (isUnnamed || isSame || before.length !== now.length) return [];
  const inWords = (names: readonly string[]): string => names.slice(0, 20).join(", ");
  return [
    `the model's classes ${inWords(before)} are, in this order, ${inWords(now)} from here on`,
  ];
}

/** What a run of rows without a label learns. @throws E_CONFIG_CONFLICT */
export function textObjective({ objective: asked }: ResolvedConfig): Objective {
  const objective = objectiveOf(asked === "auto" ? "causal_lm" : asked);
  const isOfPairs = objective.comparesPairs === true;
  if (objective.labels === undefined && !isOfPairs) return objective;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "objective and dataset",
    reason: isOfPairs
      ? `${asked} ${comparesAnswers}, and the data set has none: its columns are prompt, chosen and rejected`
      : `${asked} learns rows with a label, and the data set has none`,
  });
}

/** What evaluations are compared by: one of the objective's metrics; undefined for the loss. @throws E_CONFIG_CONFLICT */
export function bestMetric(
  { metric_for_best_model: name }: ResolvedConfig,
  job: Pick<TaskedJob, "objective" | "tasks">,
): Metric | undefined {
  if (name === null || name.replace(/^eval_/, "") === "loss") return undefined;
  const metered = jobMetrics(job);
  const metric = metricNamed(metered, name);
  if (metric !== undefined) return metric;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "metric_for_best_model and dataset",
    reason: `${name} is no metric of ${job.tasks === undefined ? job.objective.kind : "this run"}: ${["loss", ...metered.metrics.map(({ key }) => key)].join(", ")}`,
  });
}
