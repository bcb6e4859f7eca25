// llama.cpp, which reads the GGUF files that the tests write: node-llama-cpp with the build for this machine's CPU
// that its package brings. Nothing is compiled, and no script of a package runs.

import { join } from "node:path";
import { say } from "./console.mjs";
import { placeDirectory } from "./place.mjs";
import { run } from "./run.mjs";

const VERSION = "3.22.1";
/** Its builds by Node's names of platforms. */
const BUILDS = {
  "linux-x64": "linux-x64",
  "linux-arm64": "linux-arm64",
  "darwin-arm64": "mac-arm64-metal",
  "darwin-x64": "mac-x64",
};

/** @param {string} cacheDir */
export async function installLlamaCpp(cacheDir) {
  const build = BUILDS[`${process.platform}-${process.arch}`];
  if (build === undefined) throw new Error(`it has no build for ${process.platform}`);
  const directory = join(cacheDir, "tools", `node-llama-cpp-${VERSION}`);
  await placeDirectory(directory, async (partialDir) => {
    say("fetching node-llama-cpp");
    const packages = ["node-llama-cpp", `@node-llama-cpp/${build}`];
    await run("npm", [
      ...["install", "--prefix", partialDir, "--no-audit", "--no-fund", "--no-save"],
      // Builds for GPUs are optional, and large.
      ...["--ignore-scripts", "--omit=optional"],
      ...packages.map((name) => `${name}@${VERSION}`),
    ]);
  });
  return { llamaCpp: join(directory, "node_modules", "node-llama-cpp", "dist", "index.js") };
}
