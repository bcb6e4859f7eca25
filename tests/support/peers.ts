import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { TestOptions } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { cacheDirectory } from "#cli/model-directory";

/**
 * The Python of the peers (bench/peers/requirements.txt): $LOCKSTEP_PYTHON_PEERS, a virtual environment
 * or its interpreter, else what `node scripts/setup.mjs --python` left in the cache.
 */
export function peersPython(): string | undefined {
  const own = process.env.LOCKSTEP_PYTHON_PEERS ?? "";
  const requirements = readFileSync(join(packageRoot, "bench/peers/requirements.txt"));
  const digest = createHash("sha256").update(requirements).digest("hex").slice(0, 12);
  const place = own === "" ? join(cacheDirectory(), "peers", digest) : own;
  const python =
    existsSync(place) && statSync(place).isDirectory() ? join(place, "bin/python") : place;
  return existsSync(python) ? python : undefined;
}

/** Options of a test that runs the peers: skipped without them, and says why; with CI=true it fails. */
export function needsPeers(): TestOptions {
  if (peersPython() !== undefined || process.env.CI === "true") return {};
  return { skip: "the Python peers are not installed (node scripts/setup.mjs --python, 6 GB)" };
}

/** Runs a script of tests/reference; its standard output. @throws with all it printed if it fails */
export async function runPeers(script: string, args: readonly string[]): Promise<string> {
  const python = peersPython();
  if (python === undefined) {
    throw new Error("the Python peers are not installed; run: node scripts/setup.mjs --python");
  }
  const child = spawn(python, [join(packageRoot, "tests/reference", script), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      // Nothing is fetched and no GPU is touched.
      HF_HUB_OFFLINE: "1",
      TRANSFORMERS_VERBOSITY: "error",
      TQDM_DISABLE: "1",
      CUDA_VISIBLE_DEVICES: "",
      PYTHONDONTWRITEBYTECODE: "1",
    },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (code === 0) return stdout;
  throw new Error(`${script} ended with ${code}:\n${stdout}${stderr}`);
}
