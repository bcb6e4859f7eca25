// What the build reads.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

/** The folders that are compiled or copied into dist/. */
export const SOURCE_FOLDERS = [
  "lib",
  "coordinator",
  "reducer",
  "worker",
  "cli",
  "run",
  "dashboard",
  "proto",
  "tests",
  "bench",
  "grafana",
];

const SOURCE_FILES = [
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "dashboard/tsconfig.json",
  "run/tsconfig.json",
];

/** Not sources although they lie among them. */
const SKIPPED_DIRECTORIES = new Set(["node_modules", "fixtures", "dist", "__pycache__", ".venv"]);

/** Paths, relative to the root, of all files under the source folders. */
export function listSources(root) {
  /** @type {string[]} */
  const paths = [];
  const visit = (directory) => {
    for (const entry of readdirSync(join(root, directory), { withFileTypes: true })) {
      const path = `${directory}/${entry.name}`;
      if (entry.isDirectory()) {
        if (!SKIPPED_DIRECTORIES.has(entry.name)) visit(path);
      } else if (entry.isFile()) paths.push(path);
    }
  };
  for (const folder of SOURCE_FOLDERS) if (existsSync(join(root, folder))) visit(folder);
  return paths.sort();
}

/** Changes when a source, a setting or the build itself does. Times and sizes, not contents: this runs at each start. */
export function fingerprintSources(root) {
  const hash = createHash("sha256");
  const scripts = readdirSync(join(root, "scripts", "build")).map(
    (name) => `scripts/build/${name}`,
  );
  for (const path of [...listSources(root), ...SOURCE_FILES, ...scripts.sort()]) {
    const stat = statSync(join(root, path), { throwIfNoEntry: false });
    hash.update(`${path}\0${stat?.size}\0${stat?.mtimeMs}\n`);
  }
  return hash.digest("hex");
}
