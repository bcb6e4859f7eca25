// Sets up what the demonstration of forgetting needs and runs it; what `npm run demo:forgetting` calls.
//
//   npm run demo:forgetting -- [--methods NAME,...] [--seeds N,...] [--out DIR]

import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** @returns the exit code */
const run = (script, args) =>
  spawnSync(process.execPath, [join(root, script), ...args], { stdio: "inherit" }).status ?? 1;

const code = run("scripts/setup.mjs", ["--model"]);
process.exitCode = code === 0 ? run("dist/bench/forgetting/run.js", process.argv.slice(2)) : code;
