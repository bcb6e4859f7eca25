import { LockstepError } from "#lib/core/errors/index";
import {
  isOver,
  type Job,
  type JobOwner,
  type JobRequest,
  type JobRequestFields,
  type JobResult,
} from "./job.js";

/*
 * What may become of a job. Each is a pure function of the job as it stands; undefined: it stays as it is.
 */

/** What a job is when it is submitted. */
export const submitted = (fields: JobRequestFields, id: string, submittedAt: string): Job => ({
  ...fields,
  ...{ id, submittedAt, state: "queued", epoch: 0, tries: 0, step: 0, owner: null },
  runId: null,
  ...{ asked: null, savesAsked: 0, error: null, failedAt: null },
  ...{ result: null, written: "", writtenBefore: [] },
});

/** An agent takes a job that waits. */
export const taken = (job: Job, owner: JobOwner): Job | undefined =>
  job.state !== "queued"
    ? undefined
    : {
        ...job,
        ...{ state: "running", epoch: job.epoch + 1, tries: job.tries + 1, owner },
        ...{ asked: null, savesAsked: 0 },
      };

/** Whether it still is the one that `epoch` was given with. */
const isHeld = (job: Job, epoch: number): boolean => job.state === "running" && job.epoch === epoch;

/** How far a run is known to have come. */
export interface Reached {
  readonly step: number;
  readonly runId: string | null;
}

const reached = (job: Job, { step, runId }: Reached): Job => ({
  ...job,
  step: Math.max(step, job.step),
  runId: runId ?? job.runId,
});

/** A job whose agent gave no sign of life; another may take it. */
export function lapsed(job: Job, epoch: number, at: Reached, failure: Failure): Job | undefined {
  if (!isHeld(job, epoch)) return undefined;
  if (job.asked !== null) return ended(reached(job, at));
  return triedOnceMore(job, at, failure);
}

interface Failure {
  readonly error: string;
  readonly failedAt: string;
}

/** What somebody asked for, once nobody runs the job. */
const ended = (job: Job): Job => ({
  ...job,
  state: job.asked === "cancel" ? "cancelled" : "paused",
  asked: null,
});

/** Steps that a try made show that the job is none that fails each time: tries begin to count anew. */
function triedOnceMore(job: Job, at: Reached, { error, failedAt }: Failure): Job {
  const tries = at.step > job.step ? 1 : job.tries;
  return {
    ...reached(job, at),
    ...{ tries, error, failedAt },
    state: tries >= job.maxTries ? "parked" : "queued",
  };
}

/** The run has ended by itself. */
export const done = (job: Job, epoch: number, at: Reached, result: JobResult): Job | undefined =>
  isHeld(job, epoch)
    ? { ...reached(job, at), state: "done", step: result.step, asked: null, result, error: null }
    : undefined;

/** @param isFinal another try would end alike */
export function failed(
  job: Job,
  epoch: number,
  at: Reached,
  { error, failedAt, isFinal }: Failure & { readonly isFinal: boolean },
): Job | undefined {
  if (!isHeld(job, epoch)) return undefined;
  if (job.asked !== null) return { ...ended(reached(job, at)), error };
  return isFinal
    ? { ...reached(job, at), state: "failed", error }
    : triedOnceMore(job, at, { error, failedAt });
}

/** Of a failed job nobody waits longer for the next try. */
const longestRetryMs = 300_000;

/** How long after a failure it is tried again: four times as long each time, of those in a row. */
export const retryDelayMs = ({ tries }: Pick<Job, "tries">, firstMs: number): number =>
  tries === 0 ? 0 : Math.min(firstMs * 4 ** (tries - 1), longestRetryMs);

/** The agent stopped the run orderly, because it was asked to, or because it leaves itself: no failed try. */
export function stopped(job: Job, epoch: number, at: Reached): Job | undefined {
  if (!isHeld(job, epoch)) return undefined;
  const now = reached(job, at);
  if (job.asked !== null) return ended(now);
  return { ...now, state: "queued", tries: Math.max(0, job.tries - 1) };
}

/** An agent's machine cannot run it, which says nothing of the job: no failed try. */
export function refusedBy(job: Job, epoch: number, error: string): Job | undefined {
  if (!isHeld(job, epoch)) return undefined;
  if (job.asked !== null) return { ...ended(job), error };
  return { ...job, state: "queued", tries: Math.max(0, job.tries - 1), error };
}

/** Somebody stopped the run itself, and not by the queue: it waits for a person, with its checkpoint. */
export function leftByOthers(job: Job, epoch: number, at: Reached, error: string): Job | undefined {
  if (!isHeld(job, epoch)) return undefined;
  const now = { ...reached(job, at), error };
  if (job.asked !== null) return ended(now);
  return { ...now, state: "paused", tries: Math.max(0, job.tries - 1) };
}

/** Somebody wants a job stopped. */
export function asked(job: Job, request: JobRequest): Job | undefined {
  if (job.state === "running")
    return job.asked === request ? undefined : { ...job, asked: request };
  if (request === "cancel") {
    if (job.state === "cancelled") return undefined;
    if (job.state === "done") throw refused(job, "it is done, and nothing is left to cancel");
    return { ...job, state: "cancelled" };
  }
  if (job.state === "paused") return undefined;
  if (job.state !== "queued") {
    throw refused(job, `it is ${job.state}, and only what waits or runs is paused`);
  }
  return { ...job, state: "paused" };
}

/** It is to be run again, or on. */
export function resumed(job: Job): Job | undefined {
  if (job.state === "queued") return undefined;
  if (job.state === "running") return job.asked === null ? undefined : { ...job, asked: null };
  if (job.state === "done") throw refused(job, "it is done");
  return { ...job, state: "queued", tries: 0, asked: null };
}

/** @throws E_JOB_STATE of a job that does not run */
export function saveAsked(job: Job): Job {
  if (job.state !== "running") throw refused(job, `it is ${job.state}, and only what runs saves`);
  return { ...job, savesAsked: job.savesAsked + 1 };
}

const refused = (job: Job, reason: string): LockstepError =>
  new LockstepError("E_JOB_STATE", { id: job.id, reason });

/** Jobs before this one that are not done; a missing one is done for long, or never was. */
export const waitsFor = (job: Job, jobs: ReadonlyMap<string, Job>): readonly Job[] =>
  job.after.flatMap((id) => {
    const before = jobs.get(id);
    return before === undefined || before.state === "done" ? [] : [before];
  });

/** Who comes first: the higher priority, then the earlier one. */
export const byTurn = (a: Job, b: Job): number =>
  b.priority - a.priority ||
  (a.submittedAt < b.submittedAt ? -1 : a.submittedAt > b.submittedAt ? 1 : a.id < b.id ? -1 : 1);

/** Clocks of machines that submit may differ by so much, and jobs still come in the order of their submission. */
const maxClockLeadMs = 60_000;

/**
 * When a job counts as submitted that is submitted beside those that are there: after all of them, those of this very
 * millisecond and of a clock that is a little ahead included.
 *
 * @param nowMs by the clock of who submits, since the epoch
 */
export function submittedAtAfter(jobs: Iterable<Job>, nowMs: number): string {
  let atMs = nowMs;
  for (const { submittedAt } of jobs) {
    const thereMs = Date.parse(submittedAt);
    if (thereMs >= atMs && thereMs - nowMs <= maxClockLeadMs) atMs = thereMs + 1;
  }
  return new Date(atMs).toISOString();
}

/** Jobs that can be forgotten, the oldest first: nobody waits for them. */
export function forgettable(jobs: ReadonlyMap<string, Job>): readonly Job[] {
  const named = new Set(
    [...jobs.values()].filter(({ state }) => state !== "done").flatMap(({ after }) => after),
  );
  return [...jobs.values()]
    .filter(({ id, state }) => (state === "done" || state === "cancelled") && !named.has(id))
    .sort((a, b) => (a.submittedAt < b.submittedAt ? -1 : 1));
}

/** Whether two jobs would write into one directory, now or later. */
export const isInTheWay = (job: Job, directory: string): boolean =>
  job.outputDir === directory && (!isOver(job.state) || job.state === "paused");
