import assert from "node:assert/strict";
import { join } from "node:path";
import type { LockstepEvent } from "#lib/core/events";
import { type CommandOutcome, lockstepCommand } from "./lockstep-command.js";

/** A job's file in a directory of its own. */
interface JobFile {
  readonly directory: string;
  readonly configFile: string;
}

export type RunArguments = [
  command: "train" | "train-local",
  name: string,
  args?: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
];

/**
 * Trains a job by the command, in a cluster with its events as JSON.
 *
 * @param name folder of the job's directory that takes the result
 */
export const runJob = (
  { directory, configFile }: JobFile,
  ...[command, name, args = [], onEvent]: RunArguments
): Promise<CommandOutcome> =>
  lockstepCommand(
    [
      ...[command, configFile, ...(command === "train" ? ["--json-logs"] : [])],
      ...["--output-dir", join(directory, name), ...args],
    ],
    join(directory, "cache"),
    onEvent,
  );

/** Listens to a run and kills -9 whoever leases the first group of a step, or of a round of the Fisher information, counted from 0; once. */
export class WorkerKiller {
  readonly #step: number;
  readonly #isMeasurement: boolean;
  readonly #pids = new Map<string, number>();
  #killed: string | undefined;

  constructor(step: number, { isMeasurement = false } = {}) {
    this.#step = step;
    this.#isMeasurement = isMeasurement;
  }

  readonly onEvent = (event: LockstepEvent): void => {
    if (event.type === "worker.joined") this.#pids.set(event.workerId, event.pid);
    if (event.type !== "group.leased" || event.step !== this.#step) return;
    if ((event.isMeasurement ?? false) !== this.#isMeasurement) return;
    if (this.#killed !== undefined) return;
    this.#killed = event.workerId;
    process.kill(this.#pids.get(event.workerId) as number, "SIGKILL");
  };

  assertLost({ of }: CommandOutcome): void {
    assert.ok(of("worker.lost").some(({ workerId }) => workerId === this.#killed));
  }
}

/** SHA-256 of the weights that a run ended with, as its event or one process' last line has it. */
export function mastersOf({ code, stderr, lines, of }: CommandOutcome): string {
  assert.equal(code, 0, stderr);
  const [completed] = of("run.completed");
  const [, printed] = /masters sha256 ([0-9a-f]{64})/.exec(lines.join("\n")) ?? [];
  const digest = completed?.mastersSha256 ?? printed;
  assert.ok(digest !== undefined, lines.join("\n"));
  return digest;
}

const saving = ["--save-strategy", "steps", "--save-steps", "2", "--eval-strategy", "no"];

/**
 * Trains in one process, with one and two workers, one of which is killed, and from step 2; all end alike.
 * @returns what the one process says
 */
export async function assertSameBits(job: JobFile): Promise<readonly string[]> {
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
  assert.equal(mastersOf(await runJob(job, "train", "resumed", resuming)), expected);
  return local.lines;
}
