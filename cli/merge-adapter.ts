import { readdir } from "node:fs/promises";
import { parseArgs } from "node:util";
import { saveAtomically, writeModelDirectory } from "#lib/checkpoint/index";
import { readCheckpointRecord, readOutputRecord } from "#lib/checkpoint/run-record";
import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import type { Nf4Form } from "#lib/core/nf4";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { openMergedModel } from "#run/merged-model";
import { detailOnStandardError, findModelDirectory } from "#run/model-directory";
import { findAdapter } from "#run/model-place";

/** `lockstep merge-adapter`. Returns the exit code; errors of the catalogue are thrown. */
export async function mergeAdapterCommand(args: string[]): Promise<number> {
  const { adapterDirectory, outDirectory, base: named, dtype, quantisation } = parse(args);
  const present = await readdir(outDirectory).catch(() => []);
  if (present.length > 0) {
    throw new LockstepError("E_DIRECTORY_NOT_EMPTY", { directory: outDirectory });
  }
  const onDetail = detailOnStandardError;
  const place = await findAdapter(await findModelDirectory(adapterDirectory, { onDetail }), {
    base: named,
    onDetail,
  });
  const merged = await openMergedModel(place, quantisation);
  try {
    for (const warning of merged.warnings) process.stderr.write(`warning: ${warning}\n`);
    const written = {
      sourceDir: place.modelDirectory,
      tokenizerDir: place.tokenizerDirectory,
      tensors: merged.tensors,
      configChanges: merged.configChanges,
      dtype: dtype ?? merged.dtype,
    };
    await saveAtomically(outDirectory, (temporary) => writeModelDirectory(temporary, written));
    const through = quantisation === undefined ? "" : ` as of 4 bits (${quantisation})`;
    process.stdout.write(
      `Wrote ${outDirectory}: ${place.adapter?.base}${through} with the adapter of ${merged.numModules} modules added.\n`,
    );
    if (quantisation === undefined && (await wasTrainedIn4Bits(place.directory))) {
      process.stderr.write(
        "warning: the adapter was trained beside weights of 4 bits, and merged into the base as it is stored; " +
          "--load-in-4bit merges it into what it was trained beside\n",
      );
    }
    return 0;
  } finally {
    await merged.close();
  }
}

/** What the run wrote down that saved the adapter; false where nothing stands beside it. */
async function wasTrainedIn4Bits(directory: string): Promise<boolean> {
  const record = (await readOutputRecord(directory)) ?? (await readCheckpointRecord(directory));
  return record?.identity.settings["load_in_4bit"] === true;
}

const usageError = (problem: string): LockstepError =>
  new LockstepError("E_USAGE", { command: "merge-adapter", problem });

function parse(args: string[]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...{ base: { type: "string" }, dtype: { type: "string" } },
        "load-in-4bit": { type: "boolean", default: false },
        "bnb-4bit-use-double-quant": { type: "boolean", default: false },
      },
    });
    const [adapterDirectory, outDirectory, ...rest] = positionals;
    const { base, dtype } = values;
    if (adapterDirectory === undefined || outDirectory === undefined || rest.length > 0) {
      throw new TypeError("it takes an adapter's directory and a new one");
    }
    if (dtype !== undefined && !Object.hasOwn(bytesPerElement, dtype)) {
      throw new TypeError(`--dtype is one of ${Object.keys(bytesPerElement).join(", ")}`);
    }
    const isDouble = values["bnb-4bit-use-double-quant"];
    if (isDouble && !values["load-in-4bit"]) {
      throw new TypeError("--bnb-4bit-use-double-quant is for --load-in-4bit");
    }
    const form: Nf4Form = isDouble ? "nf4-double" : "nf4";
    return {
      quantisation: values["load-in-4bit"] ? form : undefined,
      adapterDirectory,
      outDirectory: expandHome(outDirectory),
      base,
      dtype: dtype as FloatDtype | undefined,
    };
  } catch (error) {
    // parseArgs throws a TypeError for an unknown option.
    if (error instanceof TypeError) throw usageError(error.message);
    throw error;
  }
}
