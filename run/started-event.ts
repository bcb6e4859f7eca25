import { basename } from "node:path";
import { datasetName, type SettledConfig } from "#lib/config/index";
import type { RunStarted } from "#lib/core/events";
import { describedObjective } from "#lib/objectives/metrics";
import { jobMetrics } from "#lib/objectives/task-metrics";
import type { PreparedRun } from "./prepared-run.js";

/** How a run is told of when it begins. @param notes lines about what was settled, after those of the data */
export function startedEvent(
  config: SettledConfig,
  { data, job, model, parameters, plan }: Omit<PreparedRun, "started">,
  notes: readonly string[],
): RunStarted {
  const { adapterBase } = parameters;
  return {
    type: "run.started",
    runName: config.run_name ?? nameOf(config),
    totalSteps: plan.totalSteps,
    globalBatchSize: config.global_batch_size,
    sequenceLength: plan.sequenceLength,
    gradientGroups: config.gradient_groups,
    plannedWorkers: config.workers,
    minWorkers: config.min_workers,
    ...(config.max_workers === null ? {} : { maxWorkers: config.max_workers }),
    numParameters: model.numParameters,
    numTrainRows: plan.numRows,
    numTrainTokens: data.numTrainTokens,
    numValidationRows: data.numValidationRows,
    objective: describedObjective(data.objective, jobMetrics(job)),
    ...(data.labels === undefined ? {} : { numClasses: data.labels.length }),
    ...(adapterBase === undefined ? {} : { adapterBase }),
    ...(job.dropout === undefined || Object.keys(job.dropout.rates).length === 0
      ? {}
      : { dropout: job.dropout.rates }),
    dataLines: [...data.dataLines, ...notes],
  };
}

function nameOf({ model_name_or_path, dataset }: SettledConfig): string {
  const data = dataset.map((each) => basename(datasetName(each))).join(", ");
  return `${basename(model_name_or_path)} on ${data}`;
}
