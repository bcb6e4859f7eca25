import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { thisProcess } from "#lib/core/process-identity";
import type { HeldJob } from "#lib/queue/held-job";
import type { Job, JobOwner } from "#lib/queue/job";
import type { JobQueue } from "#lib/queue/job-queue";
import { jobFolder } from "./job-folders.js";
import { whyNotHere } from "./job-place.js";
import { JobProcess, type JobProcessEnd } from "./job-process.js";

interface AgentOptions {
  /** Shown in lists and logs. */
  readonly name: string;
  /** Jobs are given to others after so long without a sign of life. */
  readonly leaseMs: number;
  /** When the agent leaves, or a job is cancelled, a run has so long to finish its step and save. */
  readonly graceMs: number;
  /** Output of the runs, a folder a job. */
  readonly directory: string;
  /** What runs a job; gets the configuration and flags. */
  readonly command: readonly string[];
  readonly flags: (job: Job) => readonly string[];
  /** Keys of a job's own flags that these replace. */
  readonly without: ReadonlySet<string>;
  /** End after so many jobs; absent: go on. */
  readonly maxJobs: number | undefined;
  /** End where nothing is queued that may run, and nothing runs. */
  readonly untilEmpty: boolean;
  /** A line for a person. */
  readonly onLine: (text: string) => void;
}

/** An agent gives this many signs of life while a lease lasts. */
const beatsPerLease = 6;
/** News of a run are said so soon, and so often at most. */
const soonMs = 250;
/** A job that this machine cannot run is looked at again after so long: it may be given what is missing. */
const unfitMs = 60_000;

/**
 * Takes one job of a queue after another and runs it, until the signal comes: then the job in work is stopped with a
 * checkpoint and given back. A queue that is away stops no run.
 */
export class QueueAgent {
  readonly #queue: JobQueue;
  readonly #options: AgentOptions;
  readonly #owner: JobOwner;
  /** By id: until when. */
  readonly #unfit = new Map<string, number>();

  constructor(queue: JobQueue, options: AgentOptions) {
    this.#queue = queue;
    this.#options = options;
    const { name, leaseMs } = options;
    this.#owner = {
      ...{ agent: name, instance: randomUUID(), host: hostname(), process: thisProcess() },
      leaseMs,
    };
  }

  /** @returns how many jobs it had */
  async run(drain: AbortSignal): Promise<number> {
    const { maxJobs = Number.POSITIVE_INFINITY, untilEmpty } = this.#options;
    let numJobs = 0;
    while (numJobs < maxJobs && !drain.aborted) {
      const isFit = ({ id }: Job): boolean => performance.now() >= (this.#unfit.get(id) ?? 0);
      const held = await this.#queue.take(this.#owner, drain, { untilEmpty, isFit });
      if (held === undefined) break;
      if (await this.#work(held, drain)) numJobs++;
    }
    return numJobs;
  }

  /** @returns whether it could be run */
  async #work(held: HeldJob, drain: AbortSignal): Promise<boolean> {
    const { job } = held;
    const tell = (text: string): void => this.#options.onLine(`${job.id} ${text}`);
    const count = job.tries > 1 ? `, try ${job.tries} of ${job.maxTries}` : "";
    tell(`${job.name}: takes it (epoch ${job.epoch}${count})`);
    let run: JobProcess;
    try {
      const { without } = this.#options;
      const reason = whyNotHere(job, without);
      if (reason !== undefined) throw new Error(reason);
      const own = job.flags.filter((flag) => !without.has(/^--(\w+)/.exec(flag)?.[1] ?? ""));
      run = new JobProcess({
        job: { ...job, flags: own },
        directory: jobFolder(this.#options.directory, job.id),
        command: this.#options.command,
        flags: this.#options.flags(job),
        onLine: tell,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      tell(`cannot be run: ${reason}`);
      for (const [id, untilMs] of this.#unfit) {
        if (performance.now() >= untilMs) this.#unfit.delete(id);
      }
      this.#unfit.set(job.id, performance.now() + unfitMs);
      const why = `agent ${this.#options.name}: ${reason}`;
      await this.#say((signal) => held.refused(why, signal), tell, drain);
      return false;
    }
    const watch = new Watch(held, run, this.#options, tell, drain);
    const end = await run.ended.catch(async (error: unknown) => {
      await watch.over();
      throw error;
    });
    const isOwn = await watch.over();
    if (isOwn) {
      const how = { run, wasStopped: watch.wasStopped, tell };
      await this.#say((signal) => settle(held, end, how, signal), tell, drain);
    } else tell("belongs to another agent; this one's run has ended");
    return true;
  }

  /** Tells the queue what became of a job. Waits where it is away, but an agent that leaves not for long. */
  async #say(
    say: (signal: AbortSignal) => Promise<unknown>,
    tell: (text: string) => void,
    drain: AbortSignal,
  ): Promise<void> {
    const { graceMs } = this.#options;
    const limit = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const leave = (): void => {
      timer = setTimeout(() => limit.abort(), graceMs);
    };
    drain.addEventListener("abort", leave);
    if (drain.aborted) leave();
    try {
      await say(limit.signal);
    } catch (error) {
      if (!limit.signal.aborted) throw error;
      tell(
        `the queue could not be told within ${graceMs / 1000} s: the next agent sees in output_dir how far it came`,
      );
    } finally {
      clearTimeout(timer);
      drain.removeEventListener("abort", leave);
    }
  }
}

/** Says in the queue how a run ended. */
async function settle(
  held: HeldJob,
  end: JobProcessEnd,
  { run: { progress, outputFile }, wasStopped, tell }: Settling,
  signal: AbortSignal,
): Promise<void> {
  const { step } = progress;
  let isMine: boolean;
  if (end.code === 0) {
    const result = end.result ?? { step: Math.max(step, held.job.step), mastersSha256: null };
    isMine = await held.done(progress, result, signal);
    tell(`is done after ${result.step} steps`);
  } else if (wasStopped && isOrderly(end)) {
    isMine = await held.stopped(progress, signal);
    tell(`was stopped after step ${step}`);
  } else if (end.code === interruptedCode) {
    const why = "somebody stopped its run (lockstep control RUN stop, or Ctrl-C)";
    isMine = await held.left(progress, why, signal);
    tell(`is paused after step ${step}: ${why}`);
  } else {
    const error = `${describe(end)}; its output is in ${outputFile}`;
    tell(`failed: ${error}`);
    isMine = await held.failed(progress, { error, isFinal: isFinal(end) }, signal);
  }
  if (!isMine) tell("belongs to another agent since, which says how it ended");
}

/** What is to be said of a run that has ended. */
interface Settling {
  readonly run: JobProcess;
  readonly wasStopped: boolean;
  readonly tell: (text: string) => void;
}

/** Gives signs of life for a job that runs, and passes on what is asked of it. */
class Watch {
  wasStopped = false;
  readonly #held: HeldJob;
  readonly #run: JobProcess;
  readonly #options: Pick<AgentOptions, "leaseMs" | "graceMs">;
  readonly #tell: (text: string) => void;
  readonly #ended = new AbortController();
  readonly #loop: Promise<void>;
  #isOwn = true;
  #isAway = false;
  #saves = 0;
  #nextBeatMs = 0;
  #wake = new AbortController();
  #kill: NodeJS.Timeout | undefined;

  constructor(
    held: HeldJob,
    run: JobProcess,
    options: Pick<AgentOptions, "leaseMs" | "graceMs">,
    tell: (text: string) => void,
    drain: AbortSignal,
  ) {
    this.#held = held;
    this.#run = run;
    this.#options = options;
    this.#tell = tell;
    const leave = (): void => this.#stop("the agent leaves", true);
    drain.addEventListener("abort", leave);
    if (drain.aborted) leave();
    run.onNews = () => {
      this.#nextBeatMs = Math.min(this.#nextBeatMs, performance.now() + soonMs);
      this.#wake.abort();
    };
    this.#loop = this.#follow().finally(() => drain.removeEventListener("abort", leave));
  }

  /** The run has ended. @returns whether the job was this agent's as far as it knows */
  async over(): Promise<boolean> {
    clearTimeout(this.#kill);
    this.#ended.abort();
    this.#wake.abort();
    await this.#loop;
    return this.#isOwn;
  }

  async #follow(): Promise<void> {
    const { signal } = this.#ended;
    const beatMs = this.#options.leaseMs / beatsPerLease;
    while (!signal.aborted) {
      try {
        const isDue = performance.now() >= this.#nextBeatMs;
        if (isDue) this.#nextBeatMs = performance.now() + beatMs;
        const now = isDue ? await this.#held.beat(this.#run.progress) : await this.#held.look();
        if (this.#isAway) this.#tell("the queue can be reached again");
        this.#isAway = false;
        if (now === undefined) {
          this.#isOwn = false;
          this.#tell("was given to another agent: this one's run is ended");
          this.#run.kill();
          return;
        }
        this.#obey(now);
      } catch (error) {
        // Whatever it is, it is no reason to end a run.
        const reason = error instanceof Error ? error.message : String(error);
        if (!this.#isAway) this.#tell(`the run goes on without the queue: ${reason}`);
        this.#isAway = true;
      }
      this.#wake = new AbortController();
      if (signal.aborted) return;
      const leftMs = Math.max(0, this.#nextBeatMs - performance.now());
      await this.#held.changed(leftMs, this.#wake.signal);
    }
  }

  #obey({ asked, savesAsked }: Job): void {
    // A pause is no end: what was trained is to be saved, however long that takes.
    if (asked !== null) this.#stop(`${asked} was asked for`, asked !== "pause");
    if (savesAsked > this.#saves) {
      this.#saves = savesAsked;
      this.#tell("saves a checkpoint, which was asked for");
      this.#run.save();
    }
  }

  /** @param isLimited whether the run is killed after a while; that may follow a stop without a limit */
  #stop(why: string, isLimited: boolean): void {
    // What has ended is not waited for.
    if (this.#ended.signal.aborted) return;
    if (!this.wasStopped) {
      this.wasStopped = true;
      this.#tell(`${why}: the run is stopped, after its step and with a checkpoint`);
      this.#run.stop();
    }
    if (!isLimited || this.#kill !== undefined) return;
    this.#kill = setTimeout(() => {
      this.#tell(`the run did not end within ${this.#options.graceMs / 1000} s, and is killed`);
      this.#run.kill();
    }, this.#options.graceMs);
  }
}

/** Of a run that a person stopped in order. */
const interruptedCode = 130;

/** Exit codes of a run that was stopped, and of one that a signal ended before it could be. */
const isOrderly = ({ code, signal }: JobProcessEnd): boolean =>
  signal === "SIGTERM" || signal === "SIGKILL" || (code !== null && code > 128 && code < 160);

/** Another try of what is written wrong would end alike. */
const isFinal = ({ code, error }: JobProcessEnd): boolean =>
  code === 2 || /^E_(CONFIG|USAGE|ARGUMENT)/.test(error?.code ?? "");

function describe({ code, signal, error }: JobProcessEnd): string {
  if (error !== undefined) return `${error.code}: ${error.message}`.slice(0, 4_000);
  return signal === null ? `exit code ${code}` : `killed by ${signal}`;
}
