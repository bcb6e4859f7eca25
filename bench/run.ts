/**
 * The table of docs/benchmarks.md: Lockstep beside what people use today, in one run. `--help` says how.
 *
 * Exits with 1 if a row does not hold or could not be measured, with 2 for what it cannot read.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "#lib/core/paths";
import {
  describeEnvironment,
  describePrecision,
  hardwareName,
  numThreads,
} from "./frame/environment.js";
import type { RowResult } from "./frame/experiment.js";
import { helpText } from "./frame/help.js";
import { precisionOfProcessor } from "./frame/precision.js";
import { jsonLine, resultsPage, table } from "./frame/report.js";
import { runExperiment } from "./frame/run-experiment.js";
import { Workspace } from "./frame/workspace.js";
import { experimentsIn, select } from "./rows/index.js";

const { values, positionals } = readArguments();
const precision = orFail(precisionOfProcessor);
const experiments = experimentsIn(precision);
if (values.help) {
  process.stdout.write(helpText(precision, experiments));
  process.exit(0);
}
const numPairs = Number(values.pairs);
if (!Number.isSafeInteger(numPairs) || numPairs < 1)
  fail(`--pairs is a count, not ${values.pairs}`);
const { chosen, unknown } = select(experiments, positionals);
if (unknown.length > 0) {
  const known = experiments.flatMap(({ name, rows }) => [name, ...rows.map((row) => row.name)]);
  fail(`unknown: ${unknown.join(", ")}; known: ${[...new Set(known)].join(", ")}`);
}
// What both sides and everything they start go by.
process.env["OMP_NUM_THREADS"] ??= String(numThreads());
process.env["TF_NUM_INTRAOP_THREADS"] ??= String(numThreads());
process.env["TF_NUM_INTEROP_THREADS"] ??= "1";

const environment = [...describeEnvironment(), ...orFail(describePrecision)];
process.stderr.write(`${environment.join("\n")}\n`);
const workspace = new Workspace();
process.once("exit", () => workspace.remove());
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

const results: RowResult[] = [];
for (const experiment of chosen) {
  const startedAt = performance.now();
  const rowResults = await runExperiment(experiment, workspace, {
    numPairs,
    prefix: values.prefix.split(" ").filter((word) => word !== ""),
    onPair: (index, { ours, peer }) =>
      process.stderr.write(
        `${experiment.name} ${index + 1}/${numPairs}: ` +
          `${JSON.stringify(ours.values)} : ${JSON.stringify(peer?.values ?? {})}\n`,
      ),
  });
  if (values.json) for (const result of rowResults) process.stdout.write(`${jsonLine(result)}\n`);
  process.stderr.write(
    `${experiment.name}: ${((performance.now() - startedAt) / 1000).toFixed(0)} s\n`,
  );
  results.push(...rowResults);
}
if (!values.json) process.stdout.write(`${table(results)}\n`);
if (values.record) {
  const date = new Date().toISOString().slice(0, 10);
  const folder = join(packageRoot, "bench/results");
  mkdirSync(folder, { recursive: true });
  const what = positionals.length === 0 ? "table" : positionals.join("-");
  writeFileSync(
    join(folder, `${what}_${hardwareName()}_${date}.md`),
    resultsPage(results, environment, date, numPairs),
  );
}
process.exitCode = results.every(({ holds }) => holds) ? 0 : 1;

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h", default: false },
        json: { type: "boolean", default: false },
        pairs: { type: "string", default: "5" },
        record: { type: "boolean", default: false },
        prefix: { type: "string", default: "" },
      },
    });
  } catch (error) {
    return fail(`${messageOf(error)}; --help lists what there is`);
  }
}

/** A ceiling that is none, or that torch does not keep, ends the run in one line. */
function orFail<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    return fail(messageOf(error));
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function fail(message: string): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(2);
}
