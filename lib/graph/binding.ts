import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { setEngineEnvironment } from "#lib/core/engine-environment";
import { LockstepError } from "#lib/core/errors/index";
import { engineDirectory } from "#lib/core/paths";

/**
 * What the tfjs-node addon, as the set-up extends it, offers of TensorFlow; calls are synchronous and
 * belong to one thread.
 */
export interface TensorFlowBinding {
  readonly TF_Version: string;
  createTensor(
    shape: readonly number[],
    dtype: number,
    data: Float32Array | Int32Array | Uint8Array,
  ): number;
  deleteTensor(id: number): void;
  /** A fresh array. */
  tensorDataSync(id: number): Float32Array | Int32Array | Uint8Array;
  /** Copies into an array of the tensor's type and size. */
  readTensor(id: number, into: Float32Array | Int32Array | Uint8Array): void;
  loadSavedModel(directory: string, tags: string): number;
  deleteSavedModel(id: number): void;
  runSavedModel(
    id: number,
    inputIds: readonly number[],
    inputNames: string,
    outputNames: string,
  ): readonly { readonly id: number; readonly shape: readonly number[]; readonly dtype: number }[];
  isUsingGpuDevice(): boolean;
}

let loaded: TensorFlowBinding | undefined;

/**
 * RTLD_LAZY and RTLD_NODELETE of Linux. Node unloads an addon with the last thread that loaded it, and TensorFlow with
 * it, whose handlers of the process' exit are called all the same: an engine that had computed nothing ended its
 * process with SIGSEGV.
 */
const keepLoaded = constants.dlopen.RTLD_LAZY | 0x1000;

/**
 * Loads the addon that the set-up compiled, and sets the environment that decides the bits. TensorFlow
 * reads it (threads and visible GPUs too) from the process, so a thread that calls this needs the
 * process' own environment (`SHARE_ENV`).
 */
export function loadBinding(): TensorFlowBinding {
  if (loaded !== undefined) return loaded;
  setEngineEnvironment();
  try {
    // Only the addon: the JavaScript half of the package brings all of tfjs and its eager backend, and calls
    // util.isNullOrUndefined, which Node 23 removed.
    const addon: { exports: unknown } = { exports: {} };
    process.dlopen(addon, join(engineDirectory, "tfjs_binding.node"), keepLoaded);
    const binding = addon.exports as TensorFlowBinding;
    if (binding.readTensor === undefined) throw new Error("an older set-up compiled it");
    loaded = binding;
  } catch (error) {
    throw new LockstepError(
      "E_ENGINE_NOT_INSTALLED",
      { message: error instanceof Error ? error.message : String(error) },
      { cause: error },
    );
  }
  return loaded;
}

/**
 * The engine that is installed, as the set-up wrote it down: other versions have other kernels, and so
 * other bits. Loads nothing.
 */
export function installedEngine(): string {
  try {
    const file = join(engineDirectory, "engine.json");
    const facts = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    return `tensorflow ${String(facts.tensorflow)} ${String(facts.flavour)}`;
  } catch (error) {
    throw new LockstepError(
      "E_ENGINE_NOT_INSTALLED",
      { message: error instanceof Error ? error.message : String(error) },
      { cause: error },
    );
  }
}
