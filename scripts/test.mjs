// Runs the tests that the build left in dist/tests, or those whose path holds one of the given words:
//
//   node scripts/test.mjs [WORD ...]
//
// Files go two at a time, the areas with the longest first, so that none is left over at the end: most wait
// for processes or compile on one thread, and one alone keeps three quarters of two processors busy. Those in
// which time decides go last and alone.

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
// Names nohup where that started the tests; what they start is not to live on for it.
delete process.env._;
process.env.HF_HOME = join(root, "dist", "tests", "no-hub");
const testsDir = join(root, "dist", "tests");

/** Areas, the folders of tests/, with files of more than 20 s; they begin. */
const LONG_AREAS = [
  "cli",
  "reference",
  "library",
  "models",
  "training",
  "cases",
  "graph",
  "tuning",
];
/**
 * Areas whose files run alone: workers of a cluster that are taken for lost after half a second, runs of many
 * processes, and a set-up that has to be over in two.
 */
const TIMED_AREAS = ["chaos", "cluster", "setup"];

/** Five times what the longest file takes; a hang becomes a failure that names its file. */
const FILE_TIMEOUT_MS = 15 * 60_000;
/** Each file is a process with threads of its own, and with processes that it starts. */
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
const areaOf = (file) => file.split("/")[0];
const isTimed = (file) => TIMED_AREAS.includes(areaOf(file));
const isLong = (file) => LONG_AREAS.includes(areaOf(file));
const shared = files.filter((file) => !isTimed(file));
const waves = [
  {
    files: [...shared.filter(isLong), ...shared.filter((file) => !isLong(file))],
    concurrency: Math.min(MAX_CONCURRENT_FILES, availableParallelism()),
  },
  { files: files.filter(isTimed), concurrency: 1 },
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
  return readdirSync(testsDir, { recursive: true, encoding: "utf8" })
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
