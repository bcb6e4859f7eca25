import { readdir } from "node:fs/promises";
import { parseArgs } from "node:util";
import { ModelWeights, saveAtomically, writeModelDirectory } from "#lib/checkpoint/index";
import { AdapterDirectory, mergedTensors } from "#lib/checkpoint/peft/index";
import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { detailOnStandardError, findModelDirectory, readModelConfig } from "./model-directory.js";

export const mergeAdapterUsage = `Usage: lockstep merge-adapter ADAPTER_DIR OUT_DIR [--base MODEL] [--dtype float32|bfloat16|float16]

Writes a model directory with the adapter added into the weights of its base model: W + scale B A.

ADAPTER_DIR and MODEL are directories, or ids of the Hugging Face Hub.

  --base MODEL   the base model, where it is not the one that adapter_config.json names
  --dtype TYPE   of the written weights, default that of the base model's files
`;

/** `lockstep merge-adapter`. Returns the exit code; errors of the catalogue are thrown. */
export async function mergeAdapterCommand(args: string[]): Promise<number> {
  const { adapterDirectory, outDirectory, base: named, dtype } = parse(args);
  const present = await readdir(outDirectory).catch(() => []);
  if (present.length > 0) {
    throw new LockstepError("E_DIRECTORY_NOT_EMPTY", { directory: outDirectory });
  }
  const adapter = await AdapterDirectory.open(
    await findModelDirectory(adapterDirectory, { onDetail: detailOnStandardError }),
  );
  try {
    const base = named ?? adapter.config.base_model_name_or_path;
    if (base === null) throw usageError("adapter_config.json names no base model; give --base");
    const sourceDir = await findModelDirectory(base, {
      // Of the model that the adapter was made for.
      ...(named === undefined && adapter.config.revision !== null
        ? { revision: adapter.config.revision }
        : {}),
      onDetail: detailOnStandardError,
    });
    const { model_type: modelType } = await readModelConfig(sourceDir);
    const weights = await ModelWeights.open(sourceDir);
    try {
      const tensors = mergedTensors(weights, String(modelType), adapter);
      const written = { sourceDir, tensors, dtype: dtype ?? weights.dtype() };
      await saveAtomically(outDirectory, (temporary) => writeModelDirectory(temporary, written));
    } finally {
      await weights.close();
    }
    process.stdout.write(
      `Merged ${adapter.modules.length} modules into ${base}, written to ${outDirectory}.\n`,
    );
    return 0;
  } finally {
    await adapter.close();
  }
}

const usageError = (problem: string): LockstepError =>
  new LockstepError("E_USAGE", { command: "merge-adapter", problem });

function parse(args: string[]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { base: { type: "string" }, dtype: { type: "string" } },
    });
    const [adapterDirectory, outDirectory, ...rest] = positionals;
    const { base, dtype } = values;
    if (adapterDirectory === undefined || outDirectory === undefined || rest.length > 0) {
      throw new TypeError("it takes an adapter's directory and a new one");
    }
    if (dtype !== undefined && !Object.hasOwn(bytesPerElement, dtype)) {
      throw new TypeError(`--dtype is one of ${Object.keys(bytesPerElement).join(", ")}`);
    }
    return { adapterDirectory, outDirectory, base, dtype: dtype as FloatDtype | undefined };
  } catch (error) {
    // parseArgs throws a TypeError for an unknown option.
    if (error instanceof TypeError) throw usageError(error.message);
    throw error;
  }
}
