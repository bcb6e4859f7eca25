// Feeds everything that reads bytes from outside with inputs that are wrong in seeded ways:
//
//   node scripts/fuzz.mjs [--inputs N | --minutes N] [--seed S] [--target NAME ...]
//
// A fault is printed with the command that runs its input again. --help lists all flags and targets.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join(root, "dist", "tests", "fuzz", "main.js");
if (!existsSync(main)) {
  console.error("fuzz: not built; run: node scripts/setup.mjs --test");
  process.exit(1);
}
await import(pathToFileURL(main).href);
