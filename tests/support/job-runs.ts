import assert from "node:assert/strict";
import { join } from "node:path";
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

/** SHA-256 of the weights that a run ended with, as its event or one process' last line has it. */
export function mastersOf({ code, stderr, lines, of }: CommandOutcome): string {
  assert.equal(code, 0, stderr);
  const [completed] = of("run.completed");
  const [, printed] = /masters sha256 ([0-9a-f]{64})/.exec(lines.join("\n")) ?? [];
  const digest = completed?.mastersSha256 ?? printed;
  assert.ok(digest !== undefined, lines.join("\n"));
  return digest;
}
