import { counted } from "#lib/core/format";
import { entry } from "./define.js";

/** Failures of the queue of jobs. */
export const queueErrors = {
  E_QUEUE_AWAY: entry<{ place: string; reason: string }>(
    (d) => `The queue ${d.place} cannot be reached: ${d.reason}.`,
    "Agents try again until it is there; check the address or the directory, and that this account may read and write it.",
    { retryable: true },
  ),
  E_QUEUE_UNMADE: entry<{ place: string }>(
    (d) => `There is no queue ${d.place} yet: nothing was submitted to it.`,
    "Look at the address or the directory; `lockstep submit` and `lockstep agent` make a queue.",
  ),
  E_QUEUE_RECORD: entry<{ key: string; place: string; problem: string }>(
    (d) => `The record ${d.key} of the queue ${d.place} is not one of a job: ${d.problem}.`,
    "Use the same version of Lockstep for all that share the queue; a damaged record can be removed.",
  ),
  E_QUEUE_FULL: entry<{ place: string; numJobs: number }>(
    (d) => `The queue ${d.place} holds ${counted(d.numJobs, "job")}, as many as it may.`,
    "Wait until some are done, or cancel jobs that nobody waits for.",
    { retryable: true },
  ),
  E_JOB_UNKNOWN: entry<{ id: string; place: string }>(
    (d) => `The queue ${d.place} has no job ${d.id}.`,
    "Look at what `lockstep list --all` shows; of those that are over the last 1000 are kept.",
  ),
  E_JOB_STATE: entry<{ id: string; reason: string }>(
    (d) => `Nothing is changed for job ${d.id}: ${d.reason}.`,
    "Look at what `lockstep list --all` says of each job.",
  ),
  E_JOB_OUTPUT_DIR: entry<{ directory: string; id: string }>(
    (d) => `Job ${d.id} of the queue writes into ${d.directory} already.`,
    "Give each job an output_dir of its own; the jobs of a sweep get one each.",
  ),
  E_JOB_CONFIG: entry<{ file: string; reason: string }>(
    (d) => `${d.file} cannot be a job of a queue: ${d.reason}.`,
    "Change the configuration, or run it with lockstep train.",
  ),
  E_JOB_TAKEN: entry<{ job: string; directory: string }>(
    (d) => `Job ${d.job} was given to another agent, which writes into ${d.directory}.`,
    "Nothing needs to be done: the other agent goes on from this run's checkpoints.",
  ),
} as const;
