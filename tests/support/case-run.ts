import { loadConfig } from "#lib/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import { prepareRun } from "#run/prepare";
import type { PreparedRun } from "#run/prepared-run";
import type { CaseJob } from "./case-job.js";

/** A case's run as it is before its first step, without an engine. */
export async function prepareCase(
  job: CaseJob,
  data: string,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<PreparedRun> {
  const file = await job.writeJob({
    model_name_or_path: job.modelDirectory,
    dataset: job.file(data),
    dataset_dir: job.directory,
    output_dir: job.directory,
    ...settings,
  });
  return prepareRun((await loadConfig([file])).config);
}

/** The code and message with which a case's run ends before its first step. */
export async function caseError(
  job: CaseJob,
  data: string,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  try {
    await (await prepareCase(job, data, settings)).close();
  } catch (error) {
    if (isLockstepError(error)) return `${error.code}: ${error.message} ${error.hint}`;
    throw error;
  }
  return "no error";
}
