// What the machine must bring, asked before anything is downloaded.

import { existsSync } from "node:fs";
import { supportedNode, supportsNode } from "../../bin/supported-node.cjs";
import { SetupError } from "./console.mjs";
import { findProgram, succeeds } from "./run.mjs";

/** The oldest GNU C library that the TensorFlow wheels accept. */
const MIN_GLIBC = [2, 27];

/**
 * Throws one line that names everything missing.
 *
 * @param {{pip: boolean, compiler: boolean}} needs what the steps ahead will use
 */
export function checkRequirements(needs) {
  const missing = [];
  if (!supportsNode(process.version)) {
    missing.push(`${supportedNode()} (this is ${process.version})`);
  }
  if (findProgram("npm") === null) missing.push("npm");
  if (needs.pip) {
    if (findProgram("python3") === null) missing.push("python3 with pip");
    else if (!succeeds("python3", ["-m", "pip", "--version"])) {
      missing.push("pip for python3 (Debian: apt install python3-pip)");
    }
  }
  const compiler = process.env.CXX || "g++";
  if (needs.compiler && findProgram(compiler) === null) {
    missing.push(`${compiler} (Debian: apt install g++)`);
  }
  if (missing.length > 0) throw new SetupError(`missing on this machine: ${missing.join("; ")}`);
  if (needs.compiler) checkGlibc();
}

function checkGlibc() {
  const version = process.report.getReport().header.glibcVersionRuntime;
  const [major, minor] = (version ?? "0.0").split(".").map(Number);
  if (major < MIN_GLIBC[0] || (major === MIN_GLIBC[0] && minor < MIN_GLIBC[1])) {
    const found = version ?? "another C library";
    throw new SetupError(
      `the engine needs Linux with glibc ${MIN_GLIBC.join(".")} or newer; found ${found}`,
    );
  }
}

/** Whether this machine shows an NVIDIA GPU to its processes. */
export function hasNvidiaGpu() {
  return (
    existsSync("/proc/driver/nvidia/version") ||
    existsSync("/dev/nvidia0") ||
    // In WSL the driver shows itself as this device only.
    (existsSync("/dev/dxg") && findProgram("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi") !== null)
  );
}
