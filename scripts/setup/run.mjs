// Child processes of the set-up: quiet while they succeed, their last lines in the error when they fail.

import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { atExit } from "./cleanup.mjs";
import { SetupError } from "./console.mjs";

/** How much of a failed command's output its error repeats. */
const MAX_REPEATED_OUTPUT_CHARS = 4_000;

/**
 * Runs a command to its end.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{cwd?: string, env?: NodeJS.ProcessEnv, show?: boolean}} [options] show: pass the output through
 * @returns {Promise<string>} its standard output
 */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ["ignore", options.show ? "inherit" : "pipe", options.show ? "inherit" : "pipe"],
    });
    const leave = atExit(() => child.kill("SIGKILL"));
    let stdout = "";
    let tail = "";
    child.stdout?.on("data", (chunk) => {
      stdout += chunk;
      tail = (tail + chunk).slice(-MAX_REPEATED_OUTPUT_CHARS);
    });
    child.stderr?.on("data", (chunk) => {
      tail = (tail + chunk).slice(-MAX_REPEATED_OUTPUT_CHARS);
    });
    child.on("error", (error) => {
      leave();
      reject(new SetupError(`${command} could not be started: ${error.message}`));
    });
    child.on("close", (code, signal) => {
      leave();
      if (code === 0) resolve(stdout);
      else {
        const line = [command, ...args].join(" ");
        reject(
          new SetupError(`'${line}' failed (${signal ?? `exit code ${code}`}).\n${tail.trim()}`),
        );
      }
    });
  });
}

/** True when the command runs and exits with 0. */
export function succeeds(command, args) {
  return spawnSync(command, args, { stdio: "ignore" }).status === 0;
}

/** The absolute path of the first of these programs on PATH, or null. */
export function findProgram(...names) {
  for (const name of names) {
    if (name.includes("/")) {
      if (isExecutable(name)) return name;
      continue;
    }
    for (const directory of (process.env.PATH ?? "").split(delimiter)) {
      if (directory === "") continue;
      const path = join(directory, name);
      if (isExecutable(path)) return path;
    }
  }
  return null;
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
