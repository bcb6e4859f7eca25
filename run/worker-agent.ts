import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "#lib/core/paths";
import { printable } from "#lib/core/terminal-text";
import type { JobQueue, JobView } from "#lib/queue/job-queue";
import { boundedLines } from "./bounded-lines.js";
import { chooseRun, leavesFor } from "./worker-choice.js";

interface WorkerAgentOptions {
  readonly name: string;
  /** Options of `lockstep worker`, but the coordinator and the name. */
  readonly flags: readonly string[];
  /** What a worker that is to leave has for its group; then it is killed. */
  readonly graceMs: number;
  /** End after so many runs; absent: go on. */
  readonly maxJobs: number | undefined;
  /** End where nothing is queued and nothing runs. */
  readonly untilEmpty: boolean;
  /** A line for a person. */
  readonly onLine: (text: string) => void;
  /** From 0 to 1. @default Math.random */
  readonly random?: () => number;
}

const lookEveryMs = 1_000;
/** A worker that heard of its run's end by itself has left by then. */
const leftByItselfMs = 5_000;
/** One that could not join tries the same run again after so long, and the others meanwhile. */
const againAfterMs = 10_000;
/** A longer line is cut. */
const maxLineChars = 8_192;
/** A worker has left so long before it would be killed. */
const leftBeforeMs = 2_000;

/** Lends this machine's device to the runs of a queue's coordinators, one after another, as they need it. */
export class WorkerAgent {
  readonly #queue: JobQueue;
  readonly #options: WorkerAgentOptions;
  /** Runs that took no worker of this machine, until when. */
  readonly #avoided = new Map<string, number>();

  readonly #random: () => number;

  constructor(queue: JobQueue, options: WorkerAgentOptions) {
    this.#random = options.random ?? Math.random;
    this.#queue = queue;
    this.#options = options;
  }

  /** @returns in how many runs it took part */
  async run(drain: AbortSignal): Promise<number> {
    const { maxJobs = Number.POSITIVE_INFINITY, untilEmpty, onLine } = this.#options;
    let numRuns = 0;
    while (numRuns < maxJobs && !drain.aborted) {
      const views = await this.#queue.list(drain).catch((error: unknown) => {
        if (drain.aborted) return [];
        throw error;
      });
      if (drain.aborted) break;
      const nowMs = performance.now();
      for (const [run, untilMs] of this.#avoided) if (nowMs >= untilMs) this.#avoided.delete(run);
      const open = views.filter((view) => !this.#avoided.has(runOf(view)));
      const next = chooseRun(open, this.#random);
      if (next !== undefined) {
        const { code, hasJoined, isUnwanted } = await this.#work(next, drain);
        if (hasJoined || code !== 0) numRuns++;
        if (drain.aborted) break;
        if (code !== 0) onLine(`${next.job.id} the worker ended with ${code}`);
        if (code === 0 && !isUnwanted) continue;
        this.#avoided.set(runOf(next), performance.now() + againAfterMs);
      } else if (untilEmpty && views.every(({ job }) => !isAhead(job.state))) break;
      await pause(lookEveryMs, drain);
    }
    return numRuns;
  }

  async #work({ job, beat }: JobView, drain: AbortSignal): Promise<WorkerEnd> {
    const { name, flags, graceMs, onLine } = this.#options;
    const tell = (text: string): void => onLine(`${job.id} ${text}`);
    const address = beat?.address ?? "";
    tell(`${job.name}: joins its run at ${address}`);
    const child = spawn(
      process.execPath,
      [
        ...[join(packageRoot, "bin", "lockstep"), "worker", "--coordinator", address],
        // Where a run goes on the queue says; whoever takes the job has another address.
        ...["--name", name, "--return-timeout-ms", "0"],
        ...[`--drain-grace-ms=${Math.max(0, graceMs - leftBeforeMs)}`, ...flags],
      ],
      { detached: true, stdio: ["ignore", "pipe", "pipe", "ipc"] },
    );
    let [hasJoined, isUnwanted] = [false, false];
    const leaving = new Leaving(child, graceMs);
    const leave = (): void => leaving.begin();
    drain.addEventListener("abort", leave);
    if (drain.aborted) leave();
    const leaveFor = (why: string): void => {
      isUnwanted = true;
      tell(why);
      leaving.begin();
    };
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue;
      void (async () => {
        for await (const line of boundedLines(stream, maxLineChars)) {
          tell(printable(line));
          hasJoined ||= /\bregistered at /.test(line);
          if (!hasJoined && /\bwaits at .*max_workers/.test(line)) {
            leaveFor("has as many workers as it takes: others are looked at");
          }
        }
      })().catch(() => {});
    }
    const ended = new AbortController();
    void this.#watch(job, ended.signal, () => leaving.begin(), leaveFor);
    try {
      const [code, signal] = (await once(child, "exit")) as [number | null, string | null];
      return { code: leaving.isBegun ? 0 : (code ?? signal ?? 1), hasJoined, isUnwanted };
    } finally {
      ended.abort();
      leaving.over();
      drain.removeEventListener("abort", leave);
    }
  }

  /** Calls once the job is no longer the one that was joined, or another one wants the worker more. */
  async #watch(
    { id, epoch }: JobView["job"],
    signal: AbortSignal,
    onOver: () => void,
    onUnwanted: (why: string) => void,
  ): Promise<void> {
    while (!signal.aborted) {
      await pause(lookEveryMs, signal);
      const views = await this.#queue.list(signal).catch(() => undefined);
      if (views === undefined) continue;
      const own = views.find(({ job }) => job.id === id);
      if (own?.job.state === "running" && own.job.epoch === epoch) {
        const other = leavesFor(own, views, this.#random);
        if (other === undefined) continue;
        onUnwanted(`has more workers than planned, and ${other.job.id} fewer: leaves it`);
        return;
      }
      // A worker that hears it from its coordinator has left by then.
      await pause(leftByItselfMs, signal);
      if (!signal.aborted) onOver();
      return;
    }
  }
}

interface WorkerEnd {
  /** Exit code or signal; 0 also where it was asked to leave. */
  readonly code: number | string;
  readonly hasJoined: boolean;
  /** Its run has enough others. */
  readonly isUnwanted: boolean;
}

/** The end of a worker: asked for, and then taken. */
class Leaving {
  isBegun = false;
  readonly #child: ChildProcess;
  readonly #graceMs: number;
  #kill: NodeJS.Timeout | undefined;

  constructor(child: ChildProcess, graceMs: number) {
    this.#child = child;
    this.#graceMs = graceMs;
  }

  begin(): void {
    if (this.isBegun) return;
    this.isBegun = true;
    this.#child.kill("SIGTERM");
    this.#kill = setTimeout(() => this.#child.kill("SIGKILL"), this.#graceMs);
  }

  over(): void {
    clearTimeout(this.#kill);
  }
}

const isAhead = (state: JobView["job"]["state"]): boolean =>
  state === "queued" || state === "running";

/** A job that is given again has another address. */
const runOf = ({ job }: JobView): string => `${job.id} ${job.epoch}`;

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  delay(ms, undefined, { signal }).catch(() => {});
