// Sets up what the benchmarks need and runs them; what `npm run bench` calls. A question for help is
// answered at once, before anything is installed.
//
//   npm run bench -- [NAME ...] [options]

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const program = join(root, "dist", "bench", "run.js");

const usage = `Usage: npm run bench -- [NAME ...] [--json] [--pairs N] [--record] [--prefix CMD]

Measures Lockstep beside PyTorch, transformers and tokenizers, and sets up what that takes first.

  NAME          an experiment or a row of docs/benchmarks.md; all of them by default
  --json        a line of JSON a row instead of the table
  --pairs N     pairs of fresh processes; 5 by default, fewer only to try something out
  --record      also writes bench/results/table_<hardware>_<date>.md
  --prefix CMD  put before each measuring process: "taskset -c 0,1", a lock on a shared machine

Exit code 1 if a row does not hold or could not be measured, 2 for a command line that cannot be read.
`;

/** What is built knows the names of its rows too. */
function help() {
  const built = existsSync(program) ? spawnSync(process.execPath, [program, "--help"]) : undefined;
  return built?.status === 0 ? built.stdout : usage;
}

/** @returns the exit code */
async function run(script, args) {
  const child = spawn(process.execPath, [script, ...args], { stdio: "inherit" });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? (signal === "SIGINT" ? 130 : 143)));
  });
}

// A terminal sends both to the child too, which cleans up and decides.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => {});

const args = process.argv.slice(2);
if (args.some((arg) => arg === "--help" || arg === "-h")) {
  process.stdout.write(help());
} else {
  const code = await run(join(root, "scripts", "setup.mjs"), ["--model", "--python"]);
  process.exitCode = code === 0 ? await run(program, args) : code;
}
