// Runs a command with another release of Node, fetched once into the cache:
//
//   node scripts/with-node.mjs 24 npm test
//   node scripts/with-node.mjs 22.2.0 node scripts/test.mjs data

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { delimiter, dirname } from "node:path";
import { cacheRoot } from "./setup/cache.mjs";
import { SetupError } from "./setup/console.mjs";
import { installNode } from "./setup/node-releases.mjs";

const [version, command, ...args] = process.argv.slice(2);
try {
  if (version === undefined || command === undefined) {
    throw new SetupError("usage: node scripts/with-node.mjs VERSION COMMAND [ARGUMENT ...]");
  }
  const directory = dirname(await installNode(cacheRoot(), version));
  const child = spawn(command, args, {
    stdio: "inherit",
    env: { ...process.env, PATH: `${directory}${delimiter}${process.env.PATH ?? ""}` },
  });
  // The terminal sends these to both: the command decides, and its end is ours.
  for (const signal of ["SIGINT", "SIGQUIT"]) process.on(signal, () => {});
  for (const signal of ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("error", (error) => fail(`${command} could not be started: ${error.message}`));
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? 128 + constants.signals[signal];
  });
} catch (error) {
  fail(error instanceof SetupError ? error.message : error.stack);
}

function fail(message) {
  process.stderr.write(`with-node: ${message}\n`);
  process.exitCode = 1;
}
