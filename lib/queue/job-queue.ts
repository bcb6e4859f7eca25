import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { stateOf } from "#lib/core/process-identity";
import {
  isOver,
  type Job,
  type JobBeat,
  jobIdOf,
  maxWrittenBefore,
  type JobOwner,
  type JobRequest,
  type JobRequestFields,
} from "./job.js";
import { newRecordOf, readBeat, readJob } from "./job-records.js";
import type { RecordStore, StoredRecord } from "./record-store.js";
import { Silence } from "./silence.js";
import { HeldJob } from "./held-job.js";
import * as transitions from "./transitions.js";

interface QueueOptions {
  /** A job that has failed is tried again after so long, and after four times as long each time, 5 min at most. @default 2000 */
  readonly retryMs?: number;
  /** How long a call tries to reach the queue; without a limit: for ever. */
  readonly patienceMs: number;
  /** Called once when the queue cannot be reached, and once when it can be again. */
  readonly onNews?: (line: string) => void;
}

/** A job with what is known of it now. */
export interface JobView {
  readonly job: Job;
  readonly beat: JobBeat | undefined;
  /** Jobs that have to be done before. */
  readonly waitsFor: readonly Job[];
  /** Of a job that has failed and waits: when it is tried again, by the clock of who said that it failed. */
  readonly triedAgainAt: Date | undefined;
}

const tryAgainMs = 500;
/** Looks at the queue come at least so often. */
const lookEveryMs = 1_000;
/** Jobs that a queue holds, those that are over and kept for `list` included. */
const maxJobs = 10_000;
/** Of jobs that are done or cancelled so many are kept. */
const maxKept = 1_000;

/**
 * Jobs that wait for agents. A job is one record; whatever becomes of it is one write beside the revision that the
 * writer has read, so that of several agents one gets it, and of two who believe to have it the one of the higher
 * epoch has it. Where the records lie is the store's matter.
 */
export class JobQueue {
  readonly #store: RecordStore;
  readonly #options: QueueOptions;
  readonly #silence = new Silence();
  #isAway = false;

  constructor(store: RecordStore, options: QueueOptions) {
    this.#store = store;
    this.#options = options;
  }

  get place(): string {
    return this.#store.place;
  }

  /** @throws E_JOB_UNKNOWN for a job before it that there is none, E_JOB_STATE for one that is cancelled; E_QUEUE_FULL */
  async submit(fields: JobRequestFields): Promise<Job> {
    const jobs = await this.#jobs();
    await this.#forget(jobs);
    if (jobs.size >= maxJobs) {
      throw new LockstepError("E_QUEUE_FULL", { place: this.place, numJobs: jobs.size });
    }
    for (const id of fields.after) {
      const before = jobs.get(id);
      if (before === undefined) throw new LockstepError("E_JOB_UNKNOWN", { id, place: this.place });
      if (before.state === "cancelled") {
        const reason = "it is cancelled, and nothing can come after it";
        throw new LockstepError("E_JOB_STATE", { id, reason });
      }
    }
    for (const other of jobs.values()) {
      if (!transitions.isInTheWay(other, fields.outputDir)) continue;
      const { id } = other;
      const { outputDir: directory } = fields;
      throw new LockstepError("E_JOB_OUTPUT_DIR", { directory, id });
    }
    const id = jobIdOf(randomBytes(8));
    const job = {
      ...transitions.submitted(fields, id, transitions.submittedAtAfter(jobs.values(), Date.now())),
      written: randomUUID(),
    };
    const record = newRecordOf(job, this.place);
    const isNew = await this.#reach(() => this.#store.write("jobs", job.id, record, 0));
    if (isNew) return job;
    // One that an answer got lost of is there all the same, and an agent may have taken it since.
    const { job: there } = await this.find(id);
    const isSame = there.submittedAt === job.submittedAt && there.outputDir === job.outputDir;
    return isSame ? there : this.submit(fields);
  }

  /** By turn, those that are over last. @param signal ends the waiting for a queue that is away, with its reason */
  async list(signal?: AbortSignal): Promise<readonly JobView[]> {
    const jobs = await this.#jobs(signal);
    const beats = new Map(
      (await this.#reach(() => this.#store.entries("beats"), signal)).map(({ key, value }) => [
        key,
        readBeat(value),
      ]),
    );
    return [...jobs.values()].sort(transitions.byTurn).map((job) => ({
      job,
      beat: ofEpoch(job, beats.get(job.id)),
      waitsFor: transitions.waitsFor(job, jobs),
      triedAgainAt: this.#triedAgainAt(job),
    }));
  }

  /** @throws E_JOB_UNKNOWN */
  async find(id: string): Promise<Pick<JobView, "job" | "beat">> {
    const { job } = await this.#read(id);
    return { job, beat: ofEpoch(job, await this.#beat(id)) };
  }

  /** Stops a job; of one that runs its agent does so. @throws E_JOB_UNKNOWN, E_JOB_STATE */
  ask(id: string, request: JobRequest): Promise<Job> {
    return this.#change(id, (job) => transitions.asked(job, request));
  }

  /**
   * Queues a job again that is over, or takes back what was asked of it.
   * @throws E_JOB_UNKNOWN, E_JOB_STATE; E_JOB_OUTPUT_DIR where another one has its directory since
   */
  async resume(id: string): Promise<Job> {
    const jobs = await this.#jobs();
    const mine = jobs.get(id);
    if (mine !== undefined && isOver(mine.state) && mine.state !== "done") {
      const directory = mine.outputDir;
      const other = [...jobs.values()].find(
        (each) => each.id !== id && transitions.isInTheWay(each, directory),
      );
      if (other !== undefined) {
        throw new LockstepError("E_JOB_OUTPUT_DIR", { directory, id: other.id });
      }
    }
    return this.#change(id, transitions.resumed);
  }

  /** A job that runs saves a checkpoint and goes on. @throws E_JOB_UNKNOWN, E_JOB_STATE */
  askSave(id: string): Promise<Job> {
    return this.#change(id, transitions.saveAsked);
  }

  /**
   * Waits for the next job, and takes it.
   *
   * @param untilEmpty do not wait where nothing is queued that may run here, and nothing runs
   * @param isFit whether a job may run here
   * @returns undefined once the signal comes, or the queue is empty
   */
  async take(
    owner: JobOwner,
    signal: AbortSignal,
    {
      untilEmpty = false,
      isFit = () => true,
    }: { readonly untilEmpty?: boolean; readonly isFit?: (job: Job) => boolean } = {},
  ): Promise<HeldJob | undefined> {
    while (!signal.aborted) {
      const next = await this.#reach(() => this.#next(signal, isFit), signal).catch(
        (error: unknown) => {
          if (signal.aborted) return undefined;
          throw error;
        },
      );
      if (next === "empty") {
        if (untilEmpty) return undefined;
      } else if (next !== undefined) {
        const job = await this.#take(next, owner, signal).catch((error: unknown) => {
          if (signal.aborted) return undefined;
          throw error;
        });
        if (job !== undefined) return new HeldJob(this.#held(), job);
        continue;
      }
      await this.#store.changed(lookEveryMs, signal);
    }
    return undefined;
  }

  async close(): Promise<void> {
    await this.#store.close();
  }

  /** What a held job needs of the queue. */
  #held() {
    return {
      change: (id: string, change: (job: Job) => Job | undefined, signal?: AbortSignal) =>
        this.#change(id, change, signal),
      beat: (id: string, beat: JobBeat) => this.#store.put("beats", id, JSON.stringify(beat)),
      forgetBeat: (id: string) => this.#store.remove("beats", id),
      read: async (id: string) => readJobOf(this.#store, await this.#store.get("jobs", id)),
      changed: (id: string, timeoutMs: number, signal: AbortSignal) =>
        this.#store.changed(timeoutMs, signal, id),
    };
  }

  async #take(next: Job, owner: JobOwner, signal: AbortSignal): Promise<Job | undefined> {
    const isMine = (now: Job): boolean =>
      now.state === "running" && now.owner?.instance === owner.instance;
    const take = (now: Job): Job | undefined =>
      // Its own already: an answer was lost.
      isMine(now) || now.epoch !== next.epoch ? undefined : transitions.taken(now, owner);
    const job = await this.#change(next.id, take, signal);
    // As it stands: it may have been taken, and given to another one since.
    return isMine(job) ? job : undefined;
  }

  /**
   * The job whose turn it is; undefined: one may have its turn later. Jobs of agents that are gone are queued again on
   * the way.
   */
  async #next(
    signal: AbortSignal,
    isFit: (job: Job) => boolean,
  ): Promise<Job | "empty" | undefined> {
    const jobs = await this.#jobs(signal);
    const beats = await this.#store.entries("beats");
    const running = [...jobs.values()].filter(({ state }) => state === "running");
    this.#silence.keepOnly(new Set(running.map(({ id }) => id)));
    for (const job of running) {
      const beat = readBeat(beats.find(({ key }) => key === job.id)?.value);
      const isGone = job.owner !== null && stateOf(job.owner.process) === "gone";
      const isLapsed = this.#silence.isLapsed(job, beat, performance.now(), lookEveryMs);
      if (!isGone && !isLapsed) continue;
      // What this process sees may lag behind.
      const now = await this.#beat(job.id, signal);
      if (!isGone && now?.beats !== beat?.beats) continue;
      const failure = { error: reasonOf(job, isGone), failedAt: new Date().toISOString() };
      const at = ofEpoch(job, now) ?? { step: 0, runId: null };
      const after = await this.#change(
        job.id,
        (found) => transitions.lapsed(found, job.epoch, at, failure),
        signal,
      );
      jobs.set(job.id, after);
    }
    const waiting = [...jobs.values()].filter(
      (job) => job.state === "queued" && transitions.waitsFor(job, jobs).length === 0 && isFit(job),
    );
    const isEmpty =
      waiting.length === 0 && ![...jobs.values()].some(({ state }) => state === "running");
    const isRested = this.#rested(waiting);
    return isEmpty ? "empty" : waiting.filter(isRested).sort(transitions.byTurn)[0];
  }

  /** Whether a job's last failure is long enough ago, by this process' clock. */
  #rested(waiting: readonly Job[]): (job: Job) => boolean {
    const nowMs = performance.now();
    const ids = new Set(waiting.map(({ id }) => id));
    for (const id of this.#seenWaiting.keys()) if (!ids.has(id)) this.#seenWaiting.delete(id);
    return (job) => {
      const { id, tries, epoch } = job;
      if (tries === 0) return true;
      const seen = this.#seenWaiting.get(id);
      if (seen?.epoch === epoch) return nowMs - seen.sinceMs >= this.#retryDelayMs(job);
      this.#seenWaiting.set(id, { epoch, sinceMs: nowMs });
      return false;
    };
  }

  #retryDelayMs(job: Job): number {
    return transitions.retryDelayMs(job, this.#options.retryMs ?? 2_000);
  }

  #triedAgainAt(job: Job): Date | undefined {
    if (job.state !== "queued" || job.tries === 0 || job.failedAt === null) return undefined;
    const atMs = Date.parse(job.failedAt) + this.#retryDelayMs(job);
    return Number.isNaN(atMs) ? undefined : new Date(atMs);
  }
  readonly #seenWaiting = new Map<string, { readonly epoch: number; readonly sinceMs: number }>();

  /** By id; one that nobody can read is left alone, and told of. */
  async #jobs(signal?: AbortSignal): Promise<Map<string, Job>> {
    const records = await this.#reach(() => this.#store.entries("jobs"), signal);
    const jobs = new Map<string, Job>();
    const before = this.#parsed;
    this.#parsed = new Map();
    for (const record of records) {
      try {
        const known = before.get(record.key);
        const { revision } = record;
        const job =
          known?.revision === revision ? known.job : readJob(record.value, record.key, this.place);
        this.#parsed.set(record.key, { revision, job });
        jobs.set(record.key, job);
      } catch (error) {
        if (!this.#unreadable.has(record.key)) this.#tell(String((error as Error).message));
        this.#unreadable.add(record.key);
      }
    }
    return jobs;
  }
  readonly #unreadable = new Set<string>();
  /** As of the last look: who waits looks at thousands of records whenever one changes. */
  #parsed = new Map<string, { readonly revision: number; readonly job: Job }>();

  async #read(
    id: string,
    signal?: AbortSignal,
  ): Promise<{ readonly job: Job; readonly revision: number }> {
    const record = await this.#reach(() => this.#store.get("jobs", id), signal);
    if (record === undefined) throw new LockstepError("E_JOB_UNKNOWN", { id, place: this.place });
    return { job: readJobOf(this.#store, record), revision: record.revision };
  }

  async #beat(id: string, signal?: AbortSignal): Promise<JobBeat | undefined> {
    return readBeat((await this.#reach(() => this.#store.get("beats", id), signal))?.value);
  }

  /** Changes a job as it stands when the change is written. @returns the job after it */
  async #change(
    id: string,
    change: (job: Job) => Job | undefined,
    signal?: AbortSignal,
  ): Promise<Job> {
    const written = randomUUID();
    for (;;) {
      const { job, revision } = await this.#read(id, signal);
      // Carried out, and the answer was lost; others may have changed the job since.
      if (job.written === written || job.writtenBefore.includes(written)) return job;
      const changed = change(job);
      if (changed === undefined) return job;
      const writtenBefore = [job.written, ...job.writtenBefore].slice(0, maxWrittenBefore);
      const next = { ...changed, written, writtenBefore };
      try {
        if (await this.#store.write("jobs", id, JSON.stringify(next), revision)) return next;
      } catch (error) {
        // Whether it was written shows once the queue is there.
        if (!isAway(error)) throw error;
        signal?.throwIfAborted();
      }
    }
  }

  /** Calls again for as long as the queue cannot be reached and there is patience. */
  async #reach<T>(action: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const sinceMs = awakeMs();
    for (;;) {
      try {
        const value = await action();
        if (this.#isAway) this.#tell(`the queue ${this.place} can be reached again`);
        this.#isAway = false;
        return value;
      } catch (error) {
        if (!isAway(error) || awakeMs() - sinceMs > this.#options.patienceMs) throw error;
        signal?.throwIfAborted();
        if (!this.#isAway) this.#tell(`${(error as Error).message} It is tried again.`);
        this.#isAway = true;
        await delay(tryAgainMs, undefined, signal === undefined ? {} : { signal });
      }
    }
  }

  /** Old jobs that are over go, so that a queue has an end. */
  async #forget(jobs: Map<string, Job>): Promise<void> {
    const old = transitions.forgettable(jobs);
    for (const { id } of old.slice(0, Math.max(0, old.length - maxKept))) {
      await this.#reach(() => this.#store.remove("jobs", id));
      jobs.delete(id);
    }
  }

  #tell(line: string): void {
    this.#options.onNews?.(line);
  }
}

const isAway = (error: unknown): boolean => isLockstepError(error) && error.code === "E_QUEUE_AWAY";

const ofEpoch = (job: Job, beat: JobBeat | undefined): JobBeat | undefined =>
  beat?.epoch === job.epoch ? beat : undefined;

function readJobOf(store: RecordStore, record: StoredRecord): Job;
function readJobOf(store: RecordStore, record: StoredRecord | undefined): Job | undefined;
function readJobOf(store: RecordStore, record: StoredRecord | undefined): Job | undefined {
  return record === undefined ? undefined : readJob(record.value, record.key, store.place);
}

function reasonOf({ owner }: Job, isGone: boolean): string {
  const who = `agent ${owner?.agent} (process ${owner?.process.pid} on ${owner?.host})`;
  return isGone
    ? `${who} ended and left the job unfinished`
    : `${who} gave no sign of life for ${Math.round((owner?.leaseMs ?? 0) / 1000)} s`;
}
