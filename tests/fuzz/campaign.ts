import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "#lib/core/paths";
import {
  type Assignment,
  assignmentVariable,
  type FaultMessage,
  type Message,
  type Progress,
} from "./protocol.js";
import type { Target } from "./target.js";
import { maxInputCpuSeconds } from "./trial.js";

/** Old space of the heap of a process that runs inputs, MiB. */
const maxHeapMebibytes = 512;
/** An input that waits for so long waits for something that will not come, however busy the machine. */
const maxStillMs = 120_000;
const pollMs = 200;
/** A target that ends its process more often is broken; its other inputs are given up. */
const maxRestarts = 30;
/** Clock ticks of a second in /proc/PID/stat; Linux has it so everywhere. */
const ticksPerSecond = 100;

/** A kind of fault: those of other inputs that say the same are counted. */
export interface Fault {
  readonly target: string;
  readonly seed: number;
  /** The first that showed it. */
  readonly input: number;
  readonly problem: string;
  readonly stack: string;
  count: number;
}

/** What became of the inputs of a target. */
export interface TargetReport {
  readonly target: string;
  readonly numInputs: number;
  readonly numValues: number;
  readonly numRefused: number;
  readonly codes: ReadonlyMap<string, number>;
  readonly faults: readonly Fault[];
  /** In the order of the files, where files were run. */
  readonly outcomes: readonly string[];
  /** Processor time of all inputs that were run to their end, and of the one that took most. */
  readonly cpuSeconds: number;
  readonly maxCpuSeconds: number;
  readonly maxBufferBytes: number;
}

interface RunOptions {
  readonly seed: number;
  /** Numbers of inputs: from the first on, up to and without the second. */
  readonly from: number;
  readonly to: number;
  /** Kept inputs that are run instead. */
  readonly files?: readonly string[];
}

/** Runs inputs of a target in a process of its own, which is started again where an input ends or hangs it. */
export async function runTarget(target: Target, options: RunOptions): Promise<TargetReport> {
  const place = await mkdtemp(join(tmpdir(), "lockstep-fuzz-"));
  const tally = new Tally(target.name, options.seed);
  try {
    let { from } = options;
    for (let restarts = 0; from < options.to; restarts++) {
      const folder = join(place, String(restarts));
      await mkdir(folder);
      const assignment: Assignment = {
        ...options,
        ...{ target: target.name, from, folder, progressFile: join(folder, "progress") },
      };
      const { progress, end } = await runProcess(assignment, target, tally);
      tally.count(progress);
      if (end === undefined) break;
      tally.add({ kind: "fault", input: progress.input, problem: end, stack: "" });
      from = progress.input + 1;
      if (restarts === maxRestarts) throw new Error(`${target.name} ended ${restarts} processes`);
      await rm(folder, { recursive: true, force: true });
    }
    return tally.report(options.to - options.from);
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

class Tally {
  readonly #target: string;
  readonly #seed: number;
  readonly #faults = new Map<string, Fault>();
  readonly #codes = new Map<string, number>();
  #numValues = 0;
  #numRefused = 0;
  #cpuSeconds = 0;
  #maxCpuSeconds = 0;
  #maxBufferBytes = 0;
  #outcomes: readonly string[] = [];

  constructor(target: string, seed: number) {
    this.#target = target;
    this.#seed = seed;
  }

  add({ input, problem, stack }: FaultMessage): void {
    // Figures in a message are those of an input, not of the kind.
    const frame = /\n\s+at (.*)/.exec(stack)?.[1] ?? "";
    const key = `${problem.slice(0, 200).replaceAll(/[\d.]+/g, "#")} ${frame}`;
    const known = this.#faults.get(key);
    if (known !== undefined) known.count++;
    else {
      const place = { target: this.#target, seed: this.#seed };
      this.#faults.set(key, { ...place, input, problem, stack, count: 1 });
    }
  }

  end(message: Extract<Message, { kind: "done" }>): void {
    for (const [code, count] of Object.entries(message.codes)) {
      this.#codes.set(code, (this.#codes.get(code) ?? 0) + count);
    }
    this.#cpuSeconds += message.cpuSeconds;
    this.#maxCpuSeconds = Math.max(this.#maxCpuSeconds, message.maxCpuSeconds);
    this.#maxBufferBytes = Math.max(this.#maxBufferBytes, message.maxBufferBytes);
    this.#outcomes = message.outcomes;
  }

  count({ numValues, numRefused }: Progress): void {
    this.#numValues += numValues;
    this.#numRefused += numRefused;
  }

  report(numInputs: number): TargetReport {
    return {
      target: this.#target,
      numInputs,
      numValues: this.#numValues,
      numRefused: this.#numRefused,
      codes: this.#codes,
      faults: [...this.#faults.values()],
      outcomes: this.#outcomes,
      cpuSeconds: this.#cpuSeconds,
      maxCpuSeconds: this.#maxCpuSeconds,
      maxBufferBytes: this.#maxBufferBytes,
    };
  }
}

/** @returns what the last input did to the process; undefined where all inputs are through */
async function runProcess(
  assignment: Assignment,
  { writes = [] }: Target,
  tally: Tally,
): Promise<{ readonly progress: Progress; readonly end: string | undefined }> {
  const child = spawn(process.execPath, [...nodeArguments(assignment.folder, writes)], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    env: {
      ...process.env,
      [assignmentVariable]: JSON.stringify(assignment),
      TMPDIR: assignment.folder,
      RAYON_NUM_THREADS: "1",
    },
  });
  let isDone = false;
  let output = "";
  const keepTail = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-4_000);
  };
  child.stdout?.on("data", keepTail);
  child.stderr?.on("data", keepTail);
  child.on("message", (message: Message) => {
    if (message.kind === "fault") return tally.add(message);
    isDone = true;
    tally.end(message);
  });
  const ended = new Promise<string>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  const over = new AbortController();
  const hang = watchForHangs(child, assignment, over.signal);
  const how = await ended;
  over.abort();
  const hung = await hang;
  const progress = readProgress(assignment);
  if (isDone) return { progress, end: undefined };
  const end = hung ?? `ended its process (${how}): ${output.trim().slice(-1_500)}`;
  if (progress.input < assignment.from) throw new Error(`${assignment.target}: ${end}`);
  return { progress, end };
}

/** Kills a process whose input takes too much processor time, or waits for ever. @returns what it did */
async function watchForHangs(
  child: ChildProcess,
  assignment: Assignment,
  over: AbortSignal,
): Promise<string | undefined> {
  let last = { input: -1, cpuSeconds: 0, atMs: performance.now() };
  while (!over.aborted) {
    await delay(pollMs, undefined, { signal: over }).catch(() => {});
    const { input } = readProgress(assignment);
    const cpuSeconds = cpuSecondsOf(child.pid);
    if (input !== last.input || input < assignment.from) {
      last = { input, cpuSeconds, atMs: performance.now() };
      continue;
    }
    const usedSeconds = cpuSeconds - last.cpuSeconds;
    const stillMs = performance.now() - last.atMs;
    if (usedSeconds <= maxInputCpuSeconds && stillMs <= maxStillMs) continue;
    child.kill("SIGKILL");
    return usedSeconds > maxInputCpuSeconds
      ? `runs for more than ${maxInputCpuSeconds} s of processor time`
      : "waits for what does not come";
  }
  return undefined;
}

function readProgress({ progressFile, from }: Assignment): Progress {
  try {
    const [input = -1, numValues = 0, numRefused = 0] = new Float64Array(
      new Uint8Array(readFileSync(progressFile)).buffer,
    );
    return { input, numValues, numRefused };
  } catch {
    // Not there yet, or half of a first write.
    return { input: from - 1, numValues: 0, numRefused: 0 };
  }
}

/** Of a process's threads together; 0 for one that has ended. */
function cpuSecondsOf(pid: number | undefined): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return 0;
  }
}

/** With node's own guard of the file system: what is written elsewhere is an error that no reader may hide. */
function nodeArguments(folder: string, writes: readonly string[]): readonly string[] {
  const guard = process.allowedNodeEnvironmentFlags.has("--permission")
    ? "--permission"
    : "--experimental-permission";
  return [
    guard,
    "--allow-fs-read=*",
    ...[`${folder}/*`, ...writes].map((path) => `--allow-fs-write=${path}`),
    "--allow-addons",
    "--allow-worker",
    "--no-warnings",
    `--max-old-space-size=${maxHeapMebibytes}`,
    join(packageRoot, "dist", "tests", "fuzz", "child.js"),
  ];
}

/** How many processes run inputs at a time. */
export const usualJobs = (): number => Math.max(1, Math.min(2, availableParallelism()));
