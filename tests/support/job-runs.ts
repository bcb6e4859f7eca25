import assert from "node:assert/strict";
import { join } from "node:path";
import type { LockstepEvent } from "#lib/core/events";
import { type CommandOutcome, lockstepCommand } from "./lockstep-command.js";

/** A job's file in a directory of its own. */
export interface JobFile {
  readonly directory: string;
  readonly configFile: string;
}

export type RunArguments = [
  command: "train" | "train-local",
  name: string,
  args?: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
  environment?: Readonly<Record<string, string>>,
];

/**
 * Trains a job by the command, in a cluster with its events as JSON.
 *
 * @param name folder of the job's directory that takes the result
 */
export const runJob = (
  { directory, configFile }: JobFile,
  ...[command, name, args = [], onEvent, environment]: RunArguments
): Promise<CommandOutcome> =>
  lockstepCommand(
    [
      ...[command, configFile, ...(command === "train" ? ["--json-logs"] : [])],
      ...["--output-dir", join(directory, name), ...args],
    ],
    join(directory, "cache"),
    onEvent,
    environment,
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
