// Runs inputs of one target, one after the other, for a campaign that watches it from outside.

import fs from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import { meterBuffers, refuseNetwork } from "./meters.js";
import { type Assignment, assignmentVariable, type Message, progressBytes } from "./protocol.js";

const meter = meterBuffers();
const tried = refuseNetwork();
// What is watched is loaded after the meters.
const { findTargets } = await import("./targets/index.js");
const { inputBytes, inputValue } = await import("./input.js");
const { describe, tryInput, usualMaxBufferBytes } = await import("./trial.js");

/** Inputs between two turns of the event loop, in which rejections that nobody handles show. */
const inputsPerTurn = 16;

const assignment = JSON.parse(process.env[assignmentVariable] ?? "{}") as Assignment;
const { seed, from, to, files, folder } = assignment;
const [target] = await findTargets(assignment.target);
if (target === undefined) throw new RangeError("no target");
const stray: string[] = [];
process.on("unhandledRejection", (reason) => {
  stray.push(`a rejection that nobody handled: ${textOf(reason)}`);
});
process.on("uncaughtException", (error) => {
  stray.push(`an exception that nobody caught: ${textOf(error)}`);
  process.stderr.write(`${textOf(error)}\n`);
});

const progress = new Float64Array(progressBytes / 8);
const progressFile = fs.openSync(assignment.progressFile, "w");
const writeProgress = (): void => {
  fs.writeSync(progressFile, progress, 0, progressBytes, 0);
};
const send = (message: Message): Promise<void> =>
  new Promise((resolve) => {
    process.send?.(message, undefined, {}, () => resolve());
  });

const reader = await target.open(folder);
const options = {
  meter,
  maxBufferBytes: target.maxBufferBytes ?? usualMaxBufferBytes,
  takeViolations: (): readonly string[] => [
    ...stray.splice(0),
    ...tried.splice(0).map((address) => `tried to reach ${address}`),
  ],
};
const codes: Record<string, number> = {};
const outcomes: string[] = [];
let cpuSeconds = 0;
let maxCpuSeconds = 0;
let maxBufferBytes = 0;
for (let input = from; input < to; input++) {
  progress[0] = input;
  writeProgress();
  const run = makeRun(input);
  const before = process.cpuUsage();
  const verdict = await tryInput(run, options);
  const { user, system } = process.cpuUsage(before);
  cpuSeconds += (user + system) / 1e6;
  maxCpuSeconds = Math.max(maxCpuSeconds, (user + system) / 1e6);
  maxBufferBytes = Math.max(maxBufferBytes, meter.bytes);
  outcomes.push(files === undefined ? "" : describe(verdict));
  if (verdict.kind === "value") progress[1] = (progress[1] ?? 0) + 1;
  else if (verdict.kind === "refused") {
    progress[2] = (progress[2] ?? 0) + 1;
    codes[verdict.code] = (codes[verdict.code] ?? 0) + 1;
  } else {
    await send({ kind: "fault", input, problem: verdict.problem, stack: verdict.stack });
  }
  if (input % inputsPerTurn === 0) await turn();
}
await turn();
for (const problem of options.takeViolations()) {
  await send({ kind: "fault", input: to - 1, problem, stack: "" });
}
await reader.close?.();
progress[0] = to;
writeProgress();
await send({
  kind: "done",
  codes,
  cpuSeconds,
  maxCpuSeconds,
  maxBufferBytes,
  outcomes: files === undefined ? [] : outcomes,
});
process.exit(0);

/** Makes the input before it is timed. */
function makeRun(input: number): () => unknown {
  const key = { target: assignment.target, seed, input };
  if (reader.kind === "property") {
    const value = inputValue(reader, key);
    return () => reader.check(value);
  }
  const file = files?.[input];
  const bytes = file === undefined ? inputBytes(reader, key) : fs.readFileSync(file);
  return () => reader.read(bytes);
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
