import type { Job, JobBeat, JobResult } from "./job.js";
import * as transitions from "./transitions.js";

interface HeldBy {
  readonly change: (
    id: string,
    change: (job: Job) => Job | undefined,
    signal?: AbortSignal,
  ) => Promise<Job>;
  readonly beat: (id: string, beat: JobBeat) => Promise<void>;
  /** Forgets what was told of a job that ran. */
  readonly forgetBeat: (id: string) => Promise<void>;
  readonly read: (id: string) => Promise<Job | undefined>;
  readonly changed: (id: string, timeoutMs: number, signal: AbortSignal) => Promise<void>;
}

/** What an agent tells of the run. */
export type JobProgress = Omit<JobBeat, "epoch" | "beats">;

/**
 * A job that this process was given. It is its own until another agent is given it, which this one may learn late: what
 * it writes then changes nothing.
 */
export class HeldJob {
  readonly job: Job;
  readonly #by: HeldBy;
  #beats = 0;

  constructor(by: HeldBy, job: Job) {
    this.#by = by;
    this.job = job;
  }

  /**
   * A sign of life.
   * @returns the job as it stands, with what is asked of it; undefined where it belongs to another
   * @throws E_QUEUE_AWAY
   */
  async beat(progress: JobProgress): Promise<Job | undefined> {
    const now = await this.look();
    if (now === undefined) return undefined;
    this.#beats++;
    await this.#by.beat(this.job.id, {
      epoch: this.job.epoch,
      beats: this.#beats,
      ...progress,
    });
    return now;
  }

  /** As `beat`, without one. @throws E_QUEUE_AWAY */
  async look(): Promise<Job | undefined> {
    const now = await this.#by.read(this.job.id);
    return now !== undefined && this.#isMine(now) ? now : undefined;
  }

  /** Ends once the job may have changed, or the time is over. */
  changed(timeoutMs: number, signal: AbortSignal): Promise<void> {
    return this.#by.changed(this.job.id, timeoutMs, signal);
  }

  /*
   * How the run ended. Each returns whether the job was still this agent's, and waits for a queue that is away until the
   * signal comes, with whose reason it then throws.
   */

  /** It has ended by itself. */
  async done(at: transitions.Reached, result: JobResult, signal?: AbortSignal): Promise<boolean> {
    return this.#end((job) => transitions.done(job, this.job.epoch, at, result), signal);
  }

  /** @param failure whether another try would end alike */
  async failed(
    at: transitions.Reached,
    failure: { readonly error: string; readonly isFinal: boolean },
    signal?: AbortSignal,
  ): Promise<boolean> {
    const failedAt = new Date().toISOString();
    return this.#end(
      (job) => transitions.failed(job, this.job.epoch, at, { ...failure, failedAt }),
      signal,
    );
  }

  /** This machine cannot run it; another one may. */
  async refused(error: string, signal?: AbortSignal): Promise<boolean> {
    return this.#end((job) => transitions.refusedBy(job, this.job.epoch, error), signal);
  }

  /** It was stopped orderly: the job ends as it was asked to, or waits for the next agent. */
  async stopped(at: transitions.Reached, signal?: AbortSignal): Promise<boolean> {
    return this.#end((job) => transitions.stopped(job, this.job.epoch, at), signal);
  }

  /** Somebody stopped it, and not by the queue: the job is paused, until somebody resumes it. */
  async left(at: transitions.Reached, error: string, signal?: AbortSignal): Promise<boolean> {
    return this.#end((job) => transitions.leftByOthers(job, this.job.epoch, at, error), signal);
  }

  async #end(
    change: (job: Job) => Job | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    let isMine = false;
    const after = await this.#by.change(
      this.job.id,
      (job) => {
        isMine = this.#isMine(job);
        return change(job);
      },
      signal,
    );
    // What counts is in the job by now; if this fails, a beat that is over says nothing. The next agent's is left.
    if (isMine && after.epoch === this.job.epoch)
      await this.#by.forgetBeat(this.job.id).catch(() => {});
    return isMine;
  }

  #isMine(job: Job): boolean {
    return job.state === "running" && job.epoch === this.job.epoch;
  }
}
