import { readdir } from "node:fs/promises";
import { parseArgs } from "node:util";
import { saveAtomically, writeModelDirectory } from "#lib/checkpoint/index";
import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { openMergedModel } from "#run/merged-model";
import { detailOnStandardError, findModelDirectory } from "#run/model-directory";
import { findAdapter } from "#run/model-place";

/** `lockstep merge-adapter`. Returns the exit code; errors of the catalogue are thrown. */
export async function mergeAdapterCommand(args: string[]): Promise<number> {
  const { adapterDirectory, outDirectory, base: named, dtype } = parse(args);
  const present = await readdir(outDirectory).catch(() => []);
  if (present.length > 0) {
    throw new LockstepError("E_DIRECTORY_NOT_EMPTY", { directory: outDirectory });
  }
  const onDetail = detailOnStandardError;
  const place = await findAdapter(await findModelDirectory(adapterDirectory, { onDetail }), {
    base: named,
    onDetail,
  });
  const merged = await openMergedModel(place);
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
    process.stdout.write(
      `Wrote ${outDirectory}: ${place.adapter?.base} with the adapter of ${merged.numModules} modules added.\n`,
    );
    return 0;
  } finally {
    await merged.close();
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
    return {
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
