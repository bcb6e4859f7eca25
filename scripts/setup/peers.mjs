// The Python programs that results are compared with, in a virtual environment that every checkout shares.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { elapsedSeconds, SetupError, say } from "./console.mjs";
import { placeDirectory } from "./place.mjs";
import { run } from "./run.mjs";

const REQUIREMENTS = join("bench", "peers", "requirements.txt");

/**
 * Makes the environment exist in the cache's peers/, unless $LOCKSTEP_PYTHON_PEERS names one already.
 * Its name is a digest of the requirements, so that a new version makes a new one.
 *
 * @param {string} root
 * @param {string} cacheDir
 */
export async function installPeers(root, cacheDir) {
  const own = process.env.LOCKSTEP_PYTHON_PEERS;
  if (own) {
    if (existsSync(own)) return say(`Python peers: ${own} (LOCKSTEP_PYTHON_PEERS)`);
    throw new SetupError(`LOCKSTEP_PYTHON_PEERS names ${own}, which does not exist`);
  }
  const requirements = join(root, REQUIREMENTS);
  const directory = peersDirectory(root, cacheDir);
  const before = Number(elapsedSeconds());
  const isNew = await placeDirectory(directory, async (partialDir) => {
    say("installing the Python peers (torch, transformers, peft): about 6 GB, several minutes");
    // Started as `bin/python`, which finds its packages beside itself wherever the directory lies.
    await run("python3", ["-m", "venv", partialDir]).catch((error) => {
      throw new SetupError(`${error.message}\n(Debian: apt install python3-venv)`);
    });
    const pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    await run(join(partialDir, "bin", "python"), [...pip, "--requirement", requirements]);
  });
  const seconds = (Number(elapsedSeconds()) - before).toFixed(0);
  say(isNew ? `Python peers installed in ${seconds} s` : "Python peers are in place");
}

/** Where they lie; tests/support/peers.ts looks at the same place. */
function peersDirectory(root, cacheDir) {
  const digest = createHash("sha256")
    .update(readFileSync(join(root, REQUIREMENTS)))
    .digest("hex");
  return join(cacheDir, "peers", digest.slice(0, 12));
}
