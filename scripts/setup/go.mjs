// Tools that are published as Go modules.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { SetupError, say } from "./console.mjs";
import { placeDirectory } from "./place.mjs";
import { findProgram, run } from "./run.mjs";

function goProgram() {
  const go = findProgram("go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go");
  if (go === null) throw new SetupError("no go on this machine (1.21 or newer)");
  return go;
}

/**
 * Builds one program into the cache.
 *
 * @param {string} cacheDir
 * @param {string} name of the program
 * @param {string} moduleAtVersion
 * @returns {Promise<Record<string, string>>} its path under its name
 */
export async function goInstall(cacheDir, name, moduleAtVersion) {
  const version = moduleAtVersion.slice(moduleAtVersion.lastIndexOf("@") + 1);
  const directory = join(cacheDir, "tools", `${name}-${version}`);
  await placeDirectory(directory, async (partialDir) => {
    const go = goProgram();
    say(`building ${name} ${version}`);
    await run(go, ["install", "-trimpath", "-ldflags=-s -w", moduleAtVersion], {
      env: { ...process.env, GOBIN: partialDir, GOFLAGS: "-buildvcs=false" },
    });
  });
  return { [name]: join(directory, name) };
}

/** Downloads a module and returns the directory of its sources. */
export async function goModuleDirectory(moduleAtVersion, scratchDir) {
  const go = goProgram();
  const output = await run(go, ["mod", "download", "-json", moduleAtVersion], { cwd: scratchDir });
  const { Dir: directory, Error: problem } = JSON.parse(output);
  if (typeof directory !== "string") throw new SetupError(problem ?? `no ${moduleAtVersion}`);
  rmSync(join(scratchDir, "go.sum"), { force: true });
  return directory;
}
