import { spawn } from "node:child_process";
import type { Command, Measurement } from "./experiment.js";

/** Longer than any process of the table takes, torch.compile on a slow machine; a hang fails the row. */
const processTimeoutMs = 10 * 60_000;
const shownCharacters = 1500;

/**
 * Runs a measuring process to its end.
 *
 * @param prefix put before the command: taskset, numactl, a lock on a shared machine
 * @throws Error with the end of what it printed if it fails, is stopped or prints no measurement
 */
export async function measure(
  command: Command,
  prefix: readonly string[] = [],
): Promise<Measurement> {
  const [file = "", ...args] = [...prefix, command.file, ...command.args];
  // A group of its own, so that a timeout also ends what the process started.
  const child = spawn(file, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...command.env },
    detached: true,
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const stop = (): void => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
  };
  const timer = setTimeout(stop, processTimeoutMs);
  const onExit = (): void => stop();
  process.once("exit", onExit);
  const end = await new Promise<string | number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(signal ?? code));
  }).finally(() => {
    clearTimeout(timer);
    process.off("exit", onExit);
  });
  if (end === 0) return parseMeasurement(stdout);
  const tail = `${stdout}${stderr}`.trim().slice(-shownCharacters);
  throw new Error(`${command.args[0] ?? command.file} ended with ${end}:\n${tail}`);
}

/** The last line that is a JSON object; libraries may print around it. */
export function parseMeasurement(stdout: string): Measurement {
  const line = stdout
    .split("\n")
    .filter((text) => text.startsWith("{"))
    .at(-1);
  if (line === undefined) throw new Error(`no measurement in: ${stdout.slice(-shownCharacters)}`);
  const { values, check = {} } = JSON.parse(line) as Partial<Measurement>;
  if (typeof values !== "object") throw new Error(`no values in: ${line}`);
  return { values, check };
}
