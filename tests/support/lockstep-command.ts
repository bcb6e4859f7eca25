import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { ownChild } from "./children.js";

type EventOf<T extends LockstepEvent["type"]> = Extract<LockstepEvent, { type: T }>;

export interface CommandOutcome {
  readonly code: number | null;
  readonly stderr: string;
  readonly lines: readonly string[];
  readonly events: readonly LockstepEvent[];
  readonly of: <T extends LockstepEvent["type"]>(type: T) => EventOf<T>[];
}

/**
 * Runs `lockstep` in a process of its own.
 *
 * @param cacheDirectory where the run keeps what it caches; never the user's
 * @param environment variables beside those of the tests
 * @param onEvent may act on the process while it runs; called for each event with --json-logs
 * @param node the program that runs it
 * @param cwd where it runs
 */
export async function lockstepCommand(
  args: readonly string[],
  cacheDirectory: string,
  onEvent: (event: LockstepEvent, child: ChildProcess) => void = () => {},
  environment: Readonly<Record<string, string>> = {},
  node = process.execPath,
  cwd: string = process.cwd(),
): Promise<CommandOutcome> {
  const child = ownChild(
    spawn(node, [join(packageRoot, "bin/lockstep"), ...args], {
      cwd,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, LOCKSTEP_CACHE: cacheDirectory, ...environment },
    }),
  );
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const lines: string[] = [];
  const events: LockstepEvent[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    if (!line.startsWith("{")) return;
    const event = JSON.parse(line) as LockstepEvent;
    events.push(event);
    onEvent(event, child);
  });
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  // One that failed may have been cut off from whom it is still about to part.
  if (code === 0) assert.doesNotMatch(stderr, /the command is done, and/, "what it left open");
  const of = <T extends LockstepEvent["type"]>(type: T): EventOf<T>[] =>
    events.filter((event): event is EventOf<T> => event.type === type);
  return { code, stderr, lines, events, of };
}
