import { spawn } from "node:child_process";
import { join } from "node:path";
import type { TestOptions } from "node:test";
import { peersEnvironment, peersPython } from "#bench/frame/peers-python";
import { packageRoot } from "#lib/core/paths";

/** Options of a test that runs the peers: skipped without them, and says why; with CI=true it fails. */
export function needsPeers(): TestOptions {
  if (peersPython() !== undefined || process.env.CI === "true") return {};
  return { skip: "the Python peers are not installed (node scripts/setup.mjs --python, 6 GB)" };
}

/** Runs a script of tests/reference; its standard output. @throws with all it printed if it fails */
export const runPeers = (script: string, args: readonly string[]): Promise<string> =>
  runPython(script, [join(packageRoot, "tests/reference", script), ...args]);

/** Runs lines of Python in a directory. @throws with all they printed if they fail */
export const runPeersLines = (what: string, lines: string, cwd: string): Promise<string> =>
  runPython(what, ["-c", lines], cwd);

async function runPython(
  what: string,
  args: readonly string[],
  cwd = process.cwd(),
): Promise<string> {
  const python = peersPython();
  if (python === undefined) {
    throw new Error("the Python peers are not installed; run: node scripts/setup.mjs --python");
  }
  const child = spawn(python, args, {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...peersEnvironment },
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
  throw new Error(`${what} ended with ${code}:\n${stdout}${stderr}`);
}
