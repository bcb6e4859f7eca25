// The whole build: TypeScript, WebAssembly, files copied as they are.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { say } from "../setup/console.mjs";
import { copyAddonSource } from "../setup/addon-source.mjs";
import { copyStaticFiles, removeOrphans } from "./outputs.mjs";
import { fingerprintSources } from "./sources.mjs";
import { compileTypeScript } from "./typescript.mjs";
import { compileWasm } from "./wasm.mjs";

/**
 * Brings dist/ up to date.
 *
 * @param {string} root the checkout
 * @returns {Promise<boolean>} whether there was anything to do
 */
export async function build(root) {
  const stampFile = join(root, "dist", ".build-stamp");
  const fingerprint = fingerprintSources(root);
  if (readStamp(stampFile) === fingerprint) return false;
  say("building");
  mkdirSync(join(root, "dist"), { recursive: true });
  // No stamp while dist/ is in between: an interrupted build is a build that has to be done.
  rmSync(stampFile, { force: true });
  await compileTypeScript(root);
  await compileWasm(root);
  copyStaticFiles(root);
  copyAddonSource(root);
  removeOrphans(root);
  writeFileSync(stampFile, fingerprint);
  return true;
}

function readStamp(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
