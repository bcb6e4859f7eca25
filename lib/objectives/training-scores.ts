import { type Batch, checkBatch } from "#lib/core/batch";
import type { Metrics } from "#lib/core/events";
import { type EvaluatedBatch, jobOfTask, type TaskedJob } from "#lib/core/job";
import { objectiveOf } from "./index.js";
import { metricKey } from "./task-metrics.js";

/** A batch with what the model said of its rows. */
export interface ScoredBatch extends Pick<EvaluatedBatch, "outputs"> {
  readonly batch: Batch;
}

/** Whether metrics are told of a job's training steps. */
export const scoresTraining = (job: TaskedJob): boolean =>
  (job.tasks ?? [job]).some(({ objective }) => objectiveOf(objective.kind).scoresTraining === true);

/**
 * What objectives that score training make of a step's batches, in their order, by the keys of evaluations;
 * undefined where none does.
 *
 * @throws RangeError for outputs that no model of the job has, E_MESSAGE_INVALID
 */
export function trainingScores(
  job: TaskedJob,
  scored: readonly ScoredBatch[],
): Metrics | undefined {
  const found: Record<string, number> = {};
  for (const [task, { name }] of (job.tasks ?? [{ name: undefined }]).entries()) {
    const { objective } = jobOfTask(job, task);
    const { scorer: open, outputs: declare, ...kind } = objectiveOf(objective.kind);
    const own = scored.filter(({ batch }) => (batch.task ?? 0) === task);
    if (
      kind.scoresTraining !== true ||
      open === undefined ||
      declare === undefined ||
      own.length === 0
    )
      continue;
    const [scorer, declared] = [open(objective), declare(objective)];
    for (const { batch, outputs } of own) {
      const fields = outputs === undefined ? {} : { [declared.name]: outputs };
      checkBatch({ numRows: batch.numRows, fields }, [declared], 1);
      scorer.add(batch, outputs);
    }
    for (const [key, value] of Object.entries(scorer.values())) found[metricKey(name, key)] = value;
  }
  return Object.keys(found).length === 0 ? undefined : found;
}
