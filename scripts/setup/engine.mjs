// The engine: TensorFlow's native libraries and the tfjs-node addon compiled against them.
//
// The addon's own install script fetches TensorFlow 2.9.1 (CUDA 11) from a storage bucket; this builds
// the same two source files, one of them inside ours, against the current libraries, which speak the
// same C interface.

import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { say, SetupError } from "./console.mjs";
import { placeDirectory } from "./place.mjs";
import { run } from "./run.mjs";
import { unpackWheel } from "./wheels.mjs";

const BACKEND_SOURCE = "binding/tfjs_backend.cc";
const SESSION_OPTIONS = fileURLToPath(new URL("addon/session_options.h", import.meta.url));
/** Includes the addon's other source. */
const READ_TENSOR = fileURLToPath(new URL("addon/read_tensor.cc", import.meta.url));

const COMPILER_FLAGS = [
  "-std=c++17",
  "-O2",
  "-fPIC",
  "-shared",
  "-DNODE_GYP_MODULE_NAME=tfjs_binding",
  "-DBUILDING_NODE_EXTENSION",
  "-DNAPI_VERSION=8",
];

/**
 * The directory that holds this engine in the cache. Its name carries all that its content depends on;
 * the addon is N-API, so the Node version is not among it.
 *
 * @param {string} cacheDir
 * @param {{flavour: string, wheels: import("./wheels.mjs").Wheel[], tensorflowVersion: string,
 *          addonVersion: string, addonIntegrity: string}} spec
 */
export function engineDirectory(cacheDir, spec) {
  const contents = JSON.stringify([
    spec.addonIntegrity,
    COMPILER_FLAGS,
    readFileSync(SESSION_OPTIONS, "utf8"),
    readFileSync(READ_TENSOR, "utf8"),
    spec.wheels.map(({ file, sha256, members }) => [file, sha256, members]),
  ]);
  const digest = createHash("sha256").update(contents).digest("hex").slice(0, 12);
  const platform = `${process.platform}-${process.arch}`;
  const versions = `tensorflow-${spec.tensorflowVersion}-${spec.flavour}-tfjs-${spec.addonVersion}`;
  return join(cacheDir, "engine", `${versions}-${platform}-${digest}`);
}

/**
 * Makes the engine exist in the cache.
 *
 * @param {string} cacheDir
 * @param {Parameters<typeof engineDirectory>[1]} spec
 * @param {() => {addonDir: string, headersDir: string}} sources those of the addon, and the N-API headers
 * @returns {Promise<string>} the engine's directory
 */
export async function installEngine(cacheDir, spec, sources) {
  const finalDir = engineDirectory(cacheDir, spec);
  await placeDirectory(finalDir, async (partialDir) => {
    for (const wheel of spec.wheels) {
      await unpackWheel(wheel, partialDir, `downloading ${wheel.requirement}`);
    }
    await compileAddon(partialDir, sources());
    await checkThatItLoads(partialDir);
    const facts = {
      tensorflow: spec.tensorflowVersion,
      flavour: spec.flavour,
      // XLA looks for libdevice and ptxas here (--xla_gpu_cuda_data_dir), relative to this file.
      cudaDataDirectory: spec.flavour === "cuda" ? "nvidia/cuda_nvcc" : null,
    };
    writeFileSync(join(partialDir, "engine.json"), `${JSON.stringify(facts, null, 2)}\n`);
  });
  return finalDir;
}

async function compileAddon(engineDir, { addonDir, headersDir }) {
  say("compiling the tfjs-node addon");
  const tensorflowDir = join(engineDir, "tensorflow");
  await run(process.env.CXX || "g++", [
    ...COMPILER_FLAGS,
    ...["-include", SESSION_OPTIONS],
    ...["-I", join(tensorflowDir, "include")],
    ...["-I", addonDir],
    ...["-I", headersDir],
    join(addonDir, BACKEND_SOURCE),
    READ_TENSOR,
    ...["-o", join(engineDir, "tfjs_binding.node")],
    ...["-L", tensorflowDir],
    "-l:libtensorflow_cc.so.2",
    "-l:libtensorflow_framework.so.2",
    "-Wl,-rpath,$ORIGIN/tensorflow",
  ]);
}

/** An addon that does not load here (old libc, processor without AVX) must not enter the cache. */
async function checkThatItLoads(engineDir) {
  const script = "require(process.argv[1])";
  try {
    await run(process.execPath, ["-e", script, join(engineDir, "tfjs_binding.node")]);
  } catch (error) {
    throw new SetupError(
      `the engine was built but does not load on this machine: ${error.message}`,
    );
  }
}

/** Links an engine to where the build looks for it. */
export function linkEngine(engineDir, root) {
  replaceLink(join(root, "dist", "engine"), engineDir);
}

/** Renames a new link over the old one: a process that starts meanwhile finds one of the two. */
export function replaceLink(link, target) {
  try {
    if (readlinkSync(link) === target && existsSync(link)) return;
  } catch (error) {
    if (error.code !== "ENOENT" && error.code !== "EINVAL") throw error;
  }
  mkdirSync(dirname(link), { recursive: true });
  const temporary = `${link}.${process.pid}-${randomBytes(4).toString("hex")}`;
  symlinkSync(target, temporary);
  renameSync(temporary, link);
}
