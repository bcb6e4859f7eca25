import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { isOver, type Job, jobIdPattern } from "#lib/queue/job";
import { readBeat, readJob } from "#lib/queue/job-records";
import type { NatsLink } from "#lib/wire/nats/connection";
import { queuedRecord } from "#lib/wire/nats/record-store";
import { exitCodes } from "./stop-signals.js";

interface JobNow {
  readonly job: Job;
  /** The run of its present try, or of the one before where that has not begun one; null: none was begun. */
  readonly runId: string | null;
}

/** How often a job's record is looked at. */
const pollMs = 1_000;
/** A run whose job is over, and that has said nothing of its end for so long, says no more. */
const lastWordsMs = 5_000;

/** A queued job whose run is followed: a try that died before it saved is followed by another run. */
export class WatchedJob {
  readonly #link: NatsLink;
  readonly #id: string;

  private constructor(link: NatsLink, id: string) {
    this.#link = link;
    this.#id = id;
  }

  /** @returns undefined where something else than a job is named */
  static async find(link: NatsLink, given: string | undefined): Promise<WatchedJob | undefined> {
    if (given === undefined || !jobIdPattern.test(given)) return undefined;
    const record = await queuedRecord(link, "jobs", given);
    return record === undefined ? undefined : new WatchedJob(link, given);
  }

  /** @throws E_JOB_STATE of one that has not begun */
  async runId(): Promise<string> {
    const runId = (await this.#now())?.runId ?? null;
    if (runId !== null) return runId;
    throw new LockstepError("E_JOB_STATE", { id: this.#id, reason: "its run has not begun yet" });
  }

  /**
   * Looks at the job until another run takes the place of this one, or it is over.
   *
   * @param hasEnded whether the run has said how it ended, and nothing comes after it
   * @returns the run that it has now; or the exit code that stands for the job's end; undefined: the signal came, or
   *   the queue does not keep the job any more, and its run has ended
   * @throws E_QUEUE_RECORD
   */
  async following(
    runId: string,
    { hasEnded, signal }: { readonly hasEnded: () => boolean; readonly signal: AbortSignal },
  ): Promise<{ readonly runId: string } | { readonly code: number } | undefined> {
    for (let overSinceMs: number | undefined; !signal.aborted; ) {
      const now = await this.#now().catch((error: unknown) => {
        if (isLockstepError(error) && error.code === "E_QUEUE_RECORD") throw error;
        // The server is away for a moment, and the events say so.
        return "away" as const;
      });
      // Its run alone says how it ended.
      if (now === undefined && hasEnded()) return undefined;
      const { job, runId: runOfNow = null } = now === "away" || now === undefined ? {} : now;
      if (runOfNow !== null && runOfNow !== runId) return { runId: runOfNow };
      if (job !== undefined && isOver(job.state)) {
        overSinceMs ??= performance.now();
        const isSilent = performance.now() - overSinceMs > lastWordsMs;
        if (hasEnded() || isSilent) return { code: codeOf(job) };
      } else overSinceMs = undefined;
      await delay(pollMs, undefined, { signal }).catch(() => {});
    }
    return undefined;
  }

  /** @returns undefined where the queue does not keep it any more */
  async #now(): Promise<JobNow | undefined> {
    const record = await queuedRecord(this.#link, "jobs", this.#id);
    if (record === undefined) return undefined;
    const job = readJob(record, this.#id, this.#link.servers);
    const beat = readBeat(await queuedRecord(this.#link, "beats", this.#id));
    const isOfNow = beat?.epoch === job.epoch;
    return { job, runId: (isOfNow ? beat?.runId : undefined) ?? job.runId };
  }
}

const codeOf = ({ state }: Job): number => {
  if (state === "done") return 0;
  return state === "paused" || state === "cancelled" ? exitCodes.SIGINT : 1;
};
