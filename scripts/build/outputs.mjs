// dist/ mirrors the sources: files that need no compiler are copied, outputs without a source go.

import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { listSources, SOURCE_FOLDERS } from "./sources.mjs";

/** What the browser loads as it is, and generated JavaScript. */
const COPIED = [/^dashboard\/.*\.(html|css|svg|png|ico|woff2)$/, /^proto\/gen\/.*\.js$/];

/** Copies the files that need no compiler into dist/. */
export function copyStaticFiles(root) {
  for (const path of listSources(root)) {
    if (!COPIED.some((pattern) => pattern.test(path))) continue;
    const target = join(root, "dist", path);
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(join(root, path), target);
  }
}

/** Removes the output of sources that are gone, so that no deleted test runs on. */
export function removeOrphans(root) {
  for (const folder of SOURCE_FOLDERS) {
    const directory = join(root, "dist", folder);
    if (!existsSync(directory)) continue;
    for (const name of readdirSync(directory, { recursive: true })) {
      const output = /^(.*)\.(?:js(?:\.map)?|d\.ts)$/.exec(join(folder, name));
      if (output === null) continue;
      const source = join(root, output[1]);
      if (!existsSync(`${source}.ts`) && !existsSync(`${source}.js`)) {
        rmSync(join(root, "dist", output[0]), { force: true });
      }
    }
  }
}
