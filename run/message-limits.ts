import { valuesPerRow } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import { maxControlMessageBytes, maxJobChars, maxTaskBatches, maxTokenIds } from "#lib/wire/limits";
import type { PreparedRun } from "./prepared-run.js";

/** Of a value of a field, float32 or int32. */
const bytesPerValue = 4;
/** Numbers, scale and lengths of a batch, of a field beside its name and values, and of a lease, at most. */
const batchOverheadBytes = 48;
const fieldOverheadBytes = 16;
const leaseOverheadBytes = 128;

/**
 * What a cluster sends to its workers has to fit into messages; found before the first step, not by the worker
 * that gets it.
 *
 * @throws E_TASK_TOO_LARGE
 */
export function checkMessages(
  run: Pick<PreparedRun, "config" | "job" | "plan" | "sample" | "fisher">,
): void {
  const { config, job, plan, sample } = run;
  const jobChars = JSON.stringify(job).length;
  if (jobChars > maxJobChars) {
    const numTensors = job.layout.tensors.length + (job.frozen?.tensors.length ?? 0);
    throw new LockstepError("E_TASK_TOO_LARGE", {
      ...{ what: "The description of the job", amount: jobChars, limit: maxJobChars },
      unit: "characters",
      parts: `it lists ${numTensors} tensors`,
      change: "fewer tensors that are trained or frozen",
    });
  }
  const { gradient_groups, per_device_train_batch_size, per_device_eval_batch_size } = config;
  // Each task of a step may have a batch that is partly padding.
  const numPartial =
    Math.max(1, job.tasks?.length ?? 1, typeof config.replay_probability === "number" ? 2 : 1) - 1;
  const numMicroBatches = Math.ceil(
    (plan.rowsPerStep / per_device_train_batch_size + numPartial) / gradient_groups,
  );
  const groupParts = `${numMicroBatches} micro-batches of ${per_device_train_batch_size} rows`;
  const change =
    "more gradient_groups, up to the micro-batches of a step; or less of per_device_train_batch_size, gradient_accumulation_steps or max_length";
  if (numMicroBatches > maxTaskBatches) {
    throw new LockstepError("E_TASK_TOO_LARGE", {
      ...{ what: "A gradient group", amount: numMicroBatches, limit: maxTaskBatches },
      ...{ unit: "micro-batches", parts: groupParts, change },
    });
  }
  checkBatches(run, "A gradient group", {
    numBatches: numMicroBatches,
    rowsPerBatch: per_device_train_batch_size,
    parts: groupParts,
    change,
  });
  checkBatches(run, "A batch of the evaluation", {
    numBatches: 1,
    rowsPerBatch: per_device_eval_batch_size,
    parts: `${per_device_eval_batch_size} rows`,
    change: "less of per_device_eval_batch_size or max_length",
  });
  if (run.fisher !== undefined) {
    const rowsPerGroup = run.fisher.maxRowsPerGroup;
    checkBatches(run, "A group of the Fisher information", {
      numBatches: rowsPerGroup,
      rowsPerBatch: 1,
      parts: `${rowsPerGroup} rows`,
      change: "less of ewc_samples or max_length",
    });
  }
  const sampleTokens = sample === undefined ? 0 : sample.prompt.length + sample.maxNewTokens;
  if (sampleTokens > maxTokenIds) {
    throw new LockstepError("E_TASK_TOO_LARGE", {
      ...{ what: "The sample", amount: sampleTokens, limit: maxTokenIds, unit: "tokens" },
      parts: `${sample?.prompt.length} of the prompt, ${sample?.maxNewTokens} new ones`,
      change: "a shorter sample_prompt, or less of sample_max_new_tokens",
    });
  }
}

function checkBatches(
  { job, plan }: Pick<PreparedRun, "job" | "plan">,
  what: string,
  batches: {
    readonly numBatches: number;
    readonly rowsPerBatch: number;
    readonly parts: string;
    readonly change: string;
  },
): void {
  const { numBatches, rowsPerBatch, parts, change } = batches;
  const { sequenceLength: longest } = plan;
  const tasks = job.tasks ?? [{ batchFields: job.batchFields, sequenceLength: longest }];
  const sizes = tasks.map(({ batchFields, sequenceLength }) =>
    batchFields.reduce((sum, field) => {
      const numValues = rowsPerBatch * valuesPerRow(field, sequenceLength);
      return sum + numValues * bytesPerValue + field.name.length + fieldOverheadBytes;
    }, batchOverheadBytes),
  );
  const batchBytes = Math.max(...sizes);
  const amount = numBatches * batchBytes + leaseOverheadBytes;
  if (amount <= maxControlMessageBytes) return;
  throw new LockstepError("E_TASK_TOO_LARGE", {
    ...{ what, amount, limit: maxControlMessageBytes, unit: "bytes" },
    parts: `${parts}, a row of ${plan.sequenceLength} tokens in ${job.batchFields.length} fields`,
    change,
  });
}
