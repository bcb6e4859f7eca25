import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** A module of the build. */
export function loadBuilt(path) {
  return import(pathToFileURL(join(root, "dist", `${path}.js`)).href);
}

/** Writes a page of docs/, or with --check fails where it has another text. */
export function writePage(name, text, script) {
  const page = join(root, "docs", name);
  if (!process.argv.includes("--check")) return writeFileSync(page, text);
  if (readFileSync(page, "utf8") === text) return;
  process.stderr.write(`docs/${name} differs from its sources; run: node scripts/${script}\n`);
  process.exitCode = 1;
}
