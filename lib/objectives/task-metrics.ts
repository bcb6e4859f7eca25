import type { LossSum, TaskedJob, TaskJob } from "#lib/core/job";
import { objectiveOf } from "./index.js";
import { metricsOf } from "./metrics.js";
import type { Metric } from "./objective.js";

/** Tasks whose figures are apart: those of a job that evaluates several. */
function evaluatedTasks({ tasks = [] }: Pick<TaskedJob, "tasks">): readonly TaskJob[] {
  const evaluated = tasks.filter(({ isEvaluated = true }) => isEvaluated);
  return evaluated.length < 2 ? [] : evaluated;
}

/** A task's metric in the whole run. */
const keyOf = (task: string, key: string): string => `${task}_${key}`;

/** The same, or the metric's own key in a run of one task. */
export const metricKey = (task: string | undefined, key: string): string =>
  task === undefined ? key : keyOf(task, key);

/**
 * The figures of a job's evaluations beside the whole loss: those of its objective, or of each task the loss and
 * the metrics under the task's name.
 */
export function jobMetrics(job: Pick<TaskedJob, "objective" | "tasks">): {
  readonly metrics: readonly Metric[];
  /** What an evaluation of several tasks counts: "pairs and token", of which there are some. */
  readonly units?: string;
} {
  const tasks = evaluatedTasks(job);
  if (tasks.length === 0) return { metrics: objectiveOf(job.objective.kind).metrics };
  const units = tasks.map(({ objective }) => objectiveOf(objective.kind).unit(objective));
  return {
    units: [...new Set(units)].join("s and "),
    metrics: tasks.flatMap(({ name, objective }) => [
      lossOf(name),
      ...objectiveOf(objective.kind).metrics.map((metric): Metric => {
        const { ofLoss: _, ...rest } = metric;
        const key = keyOf(name, metric.key);
        return { ...rest, key, label: `${metric.label} of ${name}`, task: name };
      }),
    ]),
  };
}

const lossOf = (task: string): Metric => ({
  ...{ key: keyOf(task, "loss"), label: `loss of ${task}`, task },
  help: "Validation loss of a task in the latest evaluation.",
  ...{ greaterIsBetter: false, digits: 4, isRatio: false },
});

/** What the batches of one task came to in an evaluation. */
export interface EvaluatedTask extends LossSum {
  /** What its objective makes of the rows' outputs. */
  readonly scores: Readonly<Record<string, number>>;
}

/** The loss of an evaluation as a whole, and its figures by the keys of {@link jobMetrics}. */
interface EvaluationFigures extends Pick<LossSum, "weight"> {
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * An evaluation's figures.
 *
 * @param terms the weights of the tasks
 * @param evaluated in the order of the job's tasks; undefined of one that nothing validates
 */
export function evaluationFigures(
  job: Pick<TaskedJob, "objective" | "tasks">,
  terms: {
    sums(groups: readonly (readonly (LossSum & { readonly task: number })[])[]): readonly LossSum[];
    loss(sums: readonly LossSum[]): number;
  },
  evaluated: readonly (EvaluatedTask | undefined)[],
): EvaluationFigures {
  const tasks = job.tasks ?? [{ name: "", objective: job.objective }];
  const isOne = evaluatedTasks(job).length === 0;
  const sums: (LossSum & { readonly task: number })[] = [];
  const metrics: Record<string, number> = {};
  for (const [task, { name, objective }] of tasks.entries()) {
    const own = evaluated[task];
    if (own === undefined) continue;
    sums.push({ lossSum: own.lossSum, weight: own.weight, task });
    const loss = own.lossSum / own.weight;
    const figures = metricsOf(objectiveOf(objective.kind), loss, own.scores);
    if (isOne) Object.assign(metrics, figures);
    else {
      metrics[keyOf(name, "loss")] = loss;
      for (const [key, value] of Object.entries(figures)) metrics[keyOf(name, key)] = value;
    }
  }
  const weight = sums.reduce((sum, one) => sum + one.weight, 0);
  return { loss: terms.loss(terms.sums([sums])), weight, metrics };
}
