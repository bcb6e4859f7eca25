import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "#lib/core/paths";
import { packageRoot } from "#lib/core/paths";

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

/** Nothing is fetched, no GPU is touched, and no bytecode is left in the checkout. */
export const peersEnvironment: Readonly<Record<string, string>> = {
  HF_HUB_OFFLINE: "1",
  TRANSFORMERS_VERBOSITY: "error",
  TQDM_DISABLE: "1",
  CUDA_VISIBLE_DEVICES: "",
  PYTHONDONTWRITEBYTECODE: "1",
};
