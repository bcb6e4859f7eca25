// Runs inputs of all targets, or one again, and prints what became of them; scripts/fuzz.mjs starts it.

import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runTarget, type TargetReport, usualJobs } from "./campaign.js";
import { faultText } from "./fault-text.js";
import { inputBytes, inputValue } from "./input.js";
import type { Target } from "./target.js";
import { allTargets, findTargets } from "./targets/index.js";
import { plan } from "./plan.js";
import fc from "fast-check";

const usage = `node scripts/fuzz.mjs [--inputs N | --minutes N] [--seed S] [--target NAME ...] [--jobs N]
node scripts/fuzz.mjs --target NAME --seed S --input I [--save FILE]    one input again
node scripts/fuzz.mjs --target NAME --file FILE                         a kept input

targets: ${(await allTargets()).map(({ name }) => name).join(", ")}
`;

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "20000" },
    minutes: { type: "string" },
    seed: { type: "string", default: "1" },
    target: { type: "string", multiple: true },
    jobs: { type: "string", default: String(usualJobs()) },
    input: { type: "string" },
    file: { type: "string" },
    save: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const whole = (name: string, text: string): number => {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`--${name} takes a whole number, not ${text}`);
};

try {
  if (values.help) process.stdout.write(usage);
  else if (values.input !== undefined || values.file !== undefined) await replay();
  else await campaign();
} catch (error) {
  if (!(error instanceof RangeError)) throw error;
  process.stderr.write(`fuzz: ${error.message}\n${usage}`);
  process.exitCode = 2;
}

async function campaign(): Promise<void> {
  const chosen =
    values.target === undefined
      ? await allTargets()
      : (await Promise.all(values.target.map(findTargets))).flat();
  const firstSeed = whole("seed", values.seed);
  const jobs = Math.max(1, whole("jobs", values.jobs));
  const endMs =
    values.minutes === undefined ? undefined : performance.now() + Number(values.minutes) * 60_000;
  const totals = new Map<string, TargetReport[]>();
  let seed = firstSeed;
  do {
    await runAll(plan(chosen, whole("inputs", values.inputs)), seed, jobs, (report) => {
      totals.set(report.target, [...(totals.get(report.target) ?? []), report]);
    });
    seed++;
  } while (endMs !== undefined && performance.now() < endMs);
  print([...totals.values()].flat());
}

async function runAll(
  planned: readonly { readonly target: Target; readonly numInputs: number }[],
  seed: number,
  jobs: number,
  onReport: (report: TargetReport) => void,
): Promise<void> {
  const queue = [...planned];
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const report = await runTarget(next.target, { seed, from: 0, to: next.numInputs });
      process.stdout.write(`${lineOf(report)}\n`);
      for (const fault of report.faults) process.stdout.write(`${faultText(fault)}\n`);
      onReport(report);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
}

function lineOf(report: TargetReport): string {
  const { target, numInputs, numValues, numRefused, codes, faults } = report;
  const numFaults = faults.reduce((sum, { count }) => sum + count, 0);
  const mebibytes = (report.maxBufferBytes / 2 ** 20).toFixed(1);
  return (
    `${target.padEnd(24)} ${String(numInputs).padStart(7)} inputs: ${numValues} values, ` +
    `${numRefused} refused by ${codes.size} codes, ${numFaults} faults; ` +
    `${report.cpuSeconds.toFixed(1)} s, an input at most ${report.maxCpuSeconds.toFixed(2)} s and ${mebibytes} MiB of buffers`
  );
}

function print(reports: readonly TargetReport[]): void {
  const sum = (of: (report: TargetReport) => number): number =>
    reports.reduce((total, report) => total + of(report), 0);
  const faults = reports.flatMap((report) => report.faults);
  process.stdout.write(
    `${sum(({ numInputs }) => numInputs)} inputs of ${new Set(reports.map(({ target }) => target)).size} targets: ` +
      `${sum(({ numValues }) => numValues)} values, ${sum(({ numRefused }) => numRefused)} refused, ` +
      `${faults.length} kinds of faults\n`,
  );
  if (faults.length > 0) process.exitCode = 1;
}

/** One input again, with all that is known of its end. */
async function replay(): Promise<void> {
  const [name, ...more] = values.target ?? [];
  if (name === undefined || more.length > 0) throw new RangeError("one --target is needed");
  const [target, ...others] = await findTargets(name);
  if (target === undefined || others.length > 0)
    throw new RangeError(`${name} is a group of targets`);
  const seed = whole("seed", values.seed);
  const input = whole("input", values.input ?? "0");
  if (values.save !== undefined || values.file === undefined) await show(target, seed, input);
  const files = values.file === undefined ? {} : { files: [values.file] };
  const range = values.file === undefined ? { from: input, to: input + 1 } : { from: 0, to: 1 };
  const report = await runTarget(target, { seed, ...range, ...files });
  for (const fault of report.faults) {
    process.stdout.write(`${fault.problem}\n${fault.stack}\n`);
    process.exitCode = 1;
  }
  for (const [code] of report.codes) process.stdout.write(`${code}\n`);
  if (report.numValues > 0) process.stdout.write("a value\n");
}

/** The input itself, on the way to a file where one is named. */
async function show(target: Target, seed: number, input: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "lockstep-fuzz-"));
  try {
    const reader = await target.open(folder);
    const key = { target: target.name, seed, input };
    if (reader.kind === "property") {
      process.stdout.write(`${fc.stringify(inputValue(reader, key))}\n`);
    } else {
      const bytes = inputBytes(reader, key);
      process.stdout.write(
        `${bytes.length} bytes: ${JSON.stringify(bytes.toString("latin1").slice(0, 1_000))}\n`,
      );
      if (values.save !== undefined) writeFileSync(values.save, bytes);
    }
    await reader.close?.();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
