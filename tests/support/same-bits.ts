import assert from "node:assert/strict";
import { join } from "node:path";
import { type JobFile, mastersOf, runJob, WorkerKiller } from "./job-runs.js";
import { lockstepCommand } from "./lockstep-command.js";

/**
 * Trains a job of at least three steps in one process, with one and two workers, one of which is killed, and from step 2;
 * all end alike.
 *
 * @param options.saveSteps 1 or 2
 * @param options.ofTwo flags of the runs of two workers that save, and of what goes on from them
 */
export async function assertSameBits(
  job: JobFile,
  {
    saveSteps = 1,
    ofTwo = [],
  }: { readonly saveSteps?: 1 | 2; readonly ofTwo?: readonly string[] } = {},
) {
  const saving = ["--save-strategy", "steps", "--save-steps", String(saveSteps), ...ofTwo];
  const local = await runJob(job, "train-local", "local", []);
  const expected = mastersOf(local);
  const two = await runJob(job, "train", "two", ["--workers", "2", ...saving]);
  assert.equal(mastersOf(two), expected);
  const one = await runJob(job, "train", "one", ["--workers", "1"]);
  assert.equal(mastersOf(one), expected);
  const killer = new WorkerKiller(1);
  const broken = await runJob(job, "train", "killed", ["--workers", "2"], killer.onEvent);
  killer.assertLost(broken);
  assert.equal(mastersOf(broken), expected);
  const checkpoint = join(job.directory, "two", "checkpoint-2");
  const resuming = ["--workers", "1", ...saving, "--resume-from-checkpoint", checkpoint];
  const resumed = await runJob(job, "train", "resumed", resuming);
  assert.equal(mastersOf(resumed), expected);
  return { local, one, two, resumed };
}

/** What a command prints, which has to end well. */
export async function lockstepLines(
  job: { readonly directory: string },
  ...args: string[]
): Promise<readonly string[]> {
  const outcome = await lockstepCommand(args, join(job.directory, "cache"));
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome.lines;
}
