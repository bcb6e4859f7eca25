// Runs the tests that the build left in dist/tests, or those whose path holds one of the given words:
//
//   node scripts/test.mjs [WORD ...]
//
// Quick files go first, a few at a time. Files that start whole clusters, browsers or servers, or that measure
// time, go last and alone, so that they do not starve each other on a small machine.

import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { PassThrough } from "node:stream";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

// A test never asks the Hugging Face Hub, nor finds what this person has of it; a test of downloads names
// its own server and cache.
for (const name of Object.keys(process.env)) {
  if (/^(HF|HUGGING_?FACE)_/.test(name)) delete process.env[name];
}
process.env.HF_HUB_OFFLINE = "1";
process.env.HF_HOME = join(root, "dist", "tests", "no-hub");
const testsDir = join(root, "dist", "tests");

/** Areas, the folders of tests/, whose files run alone. */
const SERIAL_AREAS = new Set([
  "cluster",
  "cli",
  "dashboard",
  "deploy",
  "end-to-end",
  "grafana",
  "setup",
  "training",
]);
/** The name of a file that runs alone although its area does not. */
const SERIAL_FILE = /\.serial\.test\.js$/;

/** Longer than any file takes; a hang becomes a failure that names its file. */
const FILE_TIMEOUT_MS = 8 * 60_000;
/** Each quick file is a process with threads of its own. */
const MAX_CONCURRENT_FILES = 2;

/** The figures that node's runner closes with. */
const SUMMARY_FIGURES = new Set([
  "tests",
  "suites",
  "pass",
  "fail",
  "cancelled",
  "skipped",
  "todo",
  "duration_ms",
]);

const files = findTestFiles(process.argv.slice(2));
if (files.length === 0) {
  console.error(
    existsSync(testsDir)
      ? "test: no test file matches"
      : "test: not built; run: node scripts/setup.mjs --test",
  );
  process.exit(1);
}
const isSerial = (file) => SERIAL_AREAS.has(file.split("/")[0]) || SERIAL_FILE.test(file);
const waves = [
  {
    files: files.filter((file) => !isSerial(file)),
    concurrency: Math.min(MAX_CONCURRENT_FILES, availableParallelism()),
  },
  { files: files.filter(isSerial), concurrency: 1 },
];

// XLA compiles the same small functions in file after file. They are kept for this run only: what is there
// was compiled by this engine, on this machine.
const xlaCache = mkdtempSync(join(tmpdir(), "lockstep-xla-"));
process.env.LOCKSTEP_XLA_CACHE = xlaCache;
// TensorFlow calls preferences of the compiler missing features of the processor, for each function it reads.
process.env.TF_CPP_MIN_LOG_LEVEL ??= "3";
process.on("exit", () => rmSync(xlaCache, { recursive: true, force: true }));

// Both waves report into one stream, and their closing figures are added: one summary, at the end.
const events = new PassThrough({ objectMode: true });
events.compose(spec).pipe(process.stdout);
const totals = new Map();
for (const wave of waves) await runWave(wave);
for (const [name, value] of totals) {
  events.write(diagnostic(`${name} ${name === "duration_ms" ? value.toFixed(0) : value}`));
}
events.end();

/** Paths below dist/tests, in order. */
function findTestFiles(words) {
  if (!existsSync(testsDir)) return [];
  return readdirSync(testsDir, { recursive: true })
    .filter((path) => path.endsWith(".test.js"))
    .filter((path) => words.length === 0 || words.some((word) => path.includes(word)))
    .sort();
}

function runWave({ files, concurrency }) {
  if (files.length === 0) return undefined;
  return new Promise((resolve, reject) => {
    const stream = run({
      files: files.map((file) => join(testsDir, file)),
      concurrency,
      timeout: FILE_TIMEOUT_MS,
    });
    stream.on("test:fail", (data) => {
      if (data.todo === undefined || data.todo === false) process.exitCode = 1;
    });
    stream.on("data", (event) => {
      const figure =
        event.type === "test:diagnostic" ? /^(\w+) ([\d.]+)$/.exec(event.data.message) : null;
      if (figure !== null && event.data.nesting === 0 && SUMMARY_FIGURES.has(figure[1])) {
        totals.set(figure[1], (totals.get(figure[1]) ?? 0) + Number(figure[2]));
      } else if (event.type !== "test:summary") events.write(event);
    });
    stream.on("end", resolve);
    stream.on("error", reject);
  });
}

function diagnostic(message) {
  return { type: "test:diagnostic", data: { nesting: 0, message } };
}
