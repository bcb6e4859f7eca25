import type { FisherSource } from "#coordinator/options";
import type { SettledConfig } from "#lib/config/index";
import { precisionOf } from "#lib/core/dtype";
import type { WorkerJob } from "#lib/core/job";
import type { TrainingPlan } from "#lib/data/index";
import type { ChosenParameters } from "#lib/parameters/index";
import type { PreparedData } from "./prepare-data.js";
import type { RunDropout } from "./dropout.js";
import type { SampleRequest } from "./sample-request.js";

/** What workers are told of a run, but for its number. */
export function workerJob(
  config: SettledConfig,
  modelConfig: WorkerJob["modelConfig"],
  run: {
    readonly parameters: ChosenParameters;
    readonly data: Pick<PreparedData, "objective" | "batchFields" | "tasks" | "general">;
    readonly plan: TrainingPlan;
    readonly fisher: FisherSource | undefined;
    readonly sample: SampleRequest | undefined;
    readonly dropout: RunDropout;
  },
): Omit<WorkerJob, "jobId"> {
  const { parameters, data, plan, sample } = run;
  const { rates, noiseAlpha } = run.dropout;
  const isRandom = Object.keys(rates).length > 0 || noiseAlpha !== undefined;
  const { layout, frozen, job, modelChanges } = parameters;
  const isMixed = data.tasks !== undefined || config.replay_probability !== null;
  const microBatches = config.global_batch_size / config.per_device_train_batch_size;
  return {
    modelConfig: { ...modelConfig, ...modelChanges },
    layout,
    ...(frozen === undefined ? {} : { frozen }),
    parameters: job,
    precision: precisionOf(config),
    ...(config.xla ? { xla: true } : {}),
    sequenceLength: plan.sequenceLength,
    objective: data.objective,
    batchFields: data.batchFields,
    ...(data.tasks === undefined ? {} : { tasks: data.tasks }),
    ...(config.gradient_checkpointing === true ? { gradientCheckpointing: true } : {}),
    ...(isRandom
      ? {
          dropout: {
            ...{ seed: config.seed, rates },
            ...(noiseAlpha === undefined ? {} : { noiseAlpha }),
          },
        }
      : {}),
    // The rows of a step may make more micro-batches of several tasks.
    ...(microBatches <= config.gradient_groups && !isMixed ? { accumulates: false } : {}),
    ...(run.fisher === undefined ? {} : { squares: { task: data.general?.task ?? 0 } }),
    ...(config.fingerprint_steps > 0 ? { fingerprints: true } : {}),
    microBatchSize: config.per_device_train_batch_size,
    evalBatchSize: config.per_device_eval_batch_size,
    generationLength: sample === undefined ? 0 : sample.prompt.length + sample.maxNewTokens,
    threadsPerWorker: config.threads_per_worker,
  };
}
