import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { readOutputRecord } from "#lib/checkpoint/index";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { printable } from "#lib/core/terminal-text";
import type { JobProgress } from "#lib/queue/held-job";
import type { Job, JobResult } from "#lib/queue/job";
import { boundedLines } from "./bounded-lines.js";
import { fenceEnvironment } from "./job-fence.js";
import { joinAddress } from "./worker-addresses.js";

interface JobProcessOptions {
  readonly job: Job;
  /** The configuration and the output of the run are kept here. It is there. */
  readonly directory: string;
  /** The command and what stands before the configuration. */
  readonly command: readonly string[];
  /** Beside the job's own. */
  readonly flags: readonly string[];
  /** A line for a person: steps are none. */
  readonly onLine: (text: string) => void;
}

/** How the process of a job ended. */
export interface JobProcessEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it said itself. */
  readonly error: { readonly code: string; readonly message: string } | undefined;
  readonly result: JobResult | undefined;
}

/** Of a run that says everything as JSON there is no longer line; a longer one is cut. */
const maxLineChars = 1 << 20;
/** A process that a run has left behind may hold its output open: it is listened to for so long. */
const lastWordsMs = 5_000;
/** So much of a run's output is kept; what comes after is counted. */
const maxOutputBytes = 64 << 20;

/** A job's run as a process of this machine, which ends with this one. */
export class JobProcess {
  /** Rejects with what `onLine` threw, by which the process is killed: its output is read no more. */
  readonly ended: Promise<JobProcessEnd>;
  /** Called at what those who look for a run are to know soon: where it is, who may join or has, and its first step. */
  onNews: (() => void) | undefined;
  readonly outputFile: string;
  readonly #child: ChildProcess;
  readonly #onLine: (text: string) => void;
  #progress: JobProgress;
  #error: JobProcessEnd["error"];
  #result: JobResult | undefined;
  readonly #joined = new Set<string>();
  #hasStepped = false;
  readonly #outputDir: string;
  #outputBytes = 0;
  /** Whether a checkpoint was asked for before the process said a word. */
  #savesThen = false;

  /** @throws what making its files throws */
  constructor({ job, directory, command, flags, onLine }: JobProcessOptions) {
    this.#onLine = onLine;
    this.#outputDir = job.outputDir;
    this.#progress = {
      step: 0,
      totalSteps: null,
      loss: null,
      address: null,
      workers: null,
      runId: null,
    };
    const configFile = join(directory, "job.yaml");
    writeFileSync(configFile, job.config);
    this.outputFile = join(directory, "output.log");
    const output = openSync(this.outputFile, "a");
    const [program = process.execPath, ...before] = command;
    this.#child = spawn(program, [...before, configFile, ...job.flags, ...flags], {
      // Paths in the configuration are relative to where it was submitted.
      cwd: job.directory,
      // Ctrl-C goes to the agent, which stops its run in order.
      detached: true,
      env: {
        ...process.env,
        ...fenceEnvironment({ job: job.id, epoch: job.epoch }),
        LOCKSTEP_AGENT: String(process.pid),
      },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    let fault: { readonly error: unknown } | undefined;
    const keep = (line: string): boolean => {
      try {
        this.#keep(output, line);
        return true;
      } catch (error) {
        fault ??= { error };
        this.kill();
        return false;
      }
    };
    const { stdout, stderr } = this.#child;
    const streams = [stdout, stderr].map(async (stream) => {
      if (stream === null) return;
      for await (const line of boundedLines(stream, maxLineChars)) if (!keep(line)) return;
    });
    this.ended = new Promise((resolve, reject) => {
      const end = async (code: number | null, signal: NodeJS.Signals | null): Promise<void> => {
        await Promise.race([
          Promise.allSettled(streams),
          delay(lastWordsMs, undefined, { ref: false }),
        ]);
        for (const stream of [stdout, stderr]) stream?.destroy();
        await Promise.allSettled(streams);
        closeSync(output);
        if (fault !== undefined) return reject(fault.error);
        if (code === 0) this.#result ??= await this.#madeBefore();
        resolve({ code, signal, error: this.#error, result: this.#result });
      };
      this.#child.once("error", (error) => {
        if (this.#child.pid !== undefined) return;
        this.#error = { code: "E_PROCESS_START", message: error.message };
        void end(null, null);
      });
      this.#child.once("exit", (code, signal) => void end(code, signal));
    });
  }

  get progress(): JobProgress {
    return this.#progress;
  }

  /** Asks for an orderly end: the step in work is finished and saved. */
  stop(): void {
    this.#child.kill("SIGTERM");
  }

  /** Asks for a checkpoint. Before it says its first word a process does not listen, and the signal would end it. */
  save(): void {
    if (this.#outputBytes > 0) this.#child.kill("SIGUSR1");
    else this.#savesThen = true;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #keep(output: number, line: string): void {
    this.#outputBytes += line.length + 1;
    if (this.#savesThen) {
      this.#savesThen = false;
      this.save();
    }
    if (this.#outputBytes < maxOutputBytes) {
      try {
        writeSync(output, `${line}\n`);
      } catch {
        // A full disk must not end the run.
      }
    }
    if (!line.startsWith("{")) {
      if (line.trim() !== "") this.#onLine(printable(line));
      return;
    }
    try {
      this.#read(JSON.parse(line) as LockstepEvent | ErrorLine);
    } catch {
      this.#onLine(printable(line));
    }
  }

  #read(event: LockstepEvent | ErrorLine): void {
    switch (event.type) {
      case "error":
        this.#error = { code: event.code, message: event.message };
        return;
      case "run.failed":
        this.#error ??= { code: event.code, message: event.message };
        return;
      case "run.started":
        void this.#readRunId();
        this.#tell({
          totalSteps: event.totalSteps,
          workers: {
            least: event.minWorkers ?? 1,
            planned: event.plannedWorkers,
            most: event.maxWorkers ?? null,
            joined: this.#joined.size,
          },
        });
        return;
      case "run.resumed":
        this.#tell({ step: event.step });
        this.#onLine(`goes on from ${printable(event.directory)}, after ${event.step} steps`);
        return;
      case "worker.joined":
        this.#joined.add(event.workerId);
        this.#countWorkers();
        return;
      case "worker.lost":
      case "worker.left":
        this.#joined.delete(event.workerId);
        this.#countWorkers();
        return;
      case "step.completed":
        this.#tell({ step: event.step, totalSteps: event.totalSteps, loss: finite(event.loss) });
        if (!this.#hasStepped) this.onNews?.();
        this.#hasStepped = true;
        return;
      case "checkpoint.saved":
        this.#onLine(`saved ${printable(event.directory)} after step ${event.step}`);
        return;
      case "note":
        this.#tell({ address: joinAddress(event.text) ?? this.#progress.address });
        this.#onLine(printable(event.text));
        return;
      case "run.completed":
        this.#result = { step: event.step, mastersSha256: event.mastersSha256 };
        this.#tell({ step: event.step });
        return;
      default:
    }
  }

  /** What there is of a run that had nothing left to do. */
  async #madeBefore(): Promise<JobProcessEnd["result"]> {
    const record = await readOutputRecord(this.#outputDir).catch(() => undefined);
    const { step, mastersSha256 = null } = record?.finished ?? {};
    return step === undefined ? undefined : { step, mastersSha256 };
  }

  /** A run writes its record before it begins. */
  async #readRunId(): Promise<void> {
    const record = await readOutputRecord(this.#outputDir).catch(() => undefined);
    this.#tell({ runId: record?.runId ?? null });
  }

  #countWorkers(): void {
    const { workers } = this.#progress;
    if (workers === null) return;
    this.#tell({ workers: { ...workers, joined: this.#joined.size } });
  }

  #tell(news: Partial<JobProgress>): void {
    this.#progress = { ...this.#progress, ...news };
    const { workers, address, runId } = news;
    if (workers !== undefined || address !== undefined || runId !== undefined) this.onNews?.();
  }
}

/** How a command of this package says what ended it. */
interface ErrorLine {
  readonly type: "error";
  readonly code: string;
  readonly message: string;
}

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);

/** What runs a job: on this machine alone, or for workers of others. */
export const runCommand = (name: "train" | "coordinator"): readonly string[] => [
  ...[process.execPath, join(packageRoot, "bin", "lockstep"), name],
];
