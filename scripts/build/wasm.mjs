// AssemblyScript to WebAssembly: the arithmetic of the reducer shards. Every file of the folder is an entry of one
// module, what lies in folders of it is imported; flags and output are in asconfig.json.

import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { run } from "../setup/run.mjs";

const ASSEMBLY_DIRECTORY = "lib/optim/assembly";
const CONFIG_FILE = `${ASSEMBLY_DIRECTORY}/asconfig.json`;
const OUTPUT_FILE = "dist/lib/optim/kernels.wasm";

/** Compiles the kernels; a checkout without them has nothing to compile. */
export async function compileWasm(root) {
  if (!existsSync(join(root, CONFIG_FILE))) return;
  if (isUpToDate(root)) return;
  mkdirSync(dirname(join(root, OUTPUT_FILE)), { recursive: true });
  const compiler = join(root, "node_modules", "assemblyscript", "bin", "asc.js");
  const entries = readdirSync(join(root, ASSEMBLY_DIRECTORY))
    .filter((name) => name.endsWith(".ts"))
    .sort()
    .map((name) => `${ASSEMBLY_DIRECTORY}/${name}`);
  const args = [compiler, ...entries, "--config", CONFIG_FILE, "--target", "release"];
  await run(process.execPath, args, { cwd: root });
}

/** The compiler takes seconds, and most builds do not touch the kernels. */
function isUpToDate(root) {
  const output = statSync(join(root, OUTPUT_FILE), { throwIfNoEntry: false });
  if (output === undefined) return false;
  const sources = readdirSync(join(root, ASSEMBLY_DIRECTORY), {
    recursive: true,
    encoding: "utf8",
  }).map((name) => `${ASSEMBLY_DIRECTORY}/${name}`);
  return [...sources, "package-lock.json", "scripts/build/wasm.mjs"].every((path) => {
    const source = statSync(join(root, path), { throwIfNoEntry: false });
    return source === undefined || source.mtimeMs < output.mtimeMs;
  });
}
