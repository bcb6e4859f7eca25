// AssemblyScript to WebAssembly: the arithmetic of the reducer shards.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { run } from "../setup/run.mjs";

const ASSEMBLY_DIRECTORY = "lib/optim/assembly";
const OUTPUT_FILE = "dist/lib/optim/kernels.wasm";
/** wasm32 addresses 4 GiB in pages of 64 KiB; a shared memory must name its maximum. */
const MAX_MEMORY_PAGES = 65_536;

/** Compiles the kernels; without sources there is nothing to do. */
export async function compileWasm(root) {
  const entry = ["kernels.ts", "index.ts"]
    .map((name) => join(ASSEMBLY_DIRECTORY, name))
    .find((path) => existsSync(join(root, path)));
  if (entry === undefined) return;
  const compiler = join(root, "node_modules", "assemblyscript", "bin", "asc.js");
  const config = join(ASSEMBLY_DIRECTORY, "asconfig.json");
  // Command line flags would win over the file, so the file, where there is one, says everything itself.
  const flags = existsSync(join(root, config))
    ? ["--config", config]
    : [
        ...["--optimize", "--optimizeLevel", "3", "--noAssert", "--runtime", "stub"],
        ...["--enable", "simd,threads,bulk-memory,sign-extension,mutable-globals,nontrapping-f2i"],
        ...["--importMemory", "--sharedMemory", "--maximumMemory", String(MAX_MEMORY_PAGES)],
      ];
  const outputs = ["--outFile", OUTPUT_FILE];
  await run(process.execPath, [compiler, entry, ...flags, ...outputs], { cwd: root });
}
