// Builds dist/ from the sources; does nothing when they have not changed.

import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "./build/build.mjs";
import { SetupError } from "./setup/console.mjs";

try {
  await build(dirname(dirname(fileURLToPath(import.meta.url))));
} catch (error) {
  process.stderr.write(`build: ${error instanceof SetupError ? error.message : error.stack}\n`);
  process.exitCode = 1;
}
