import { detailOnStandardError, findModelDirectory } from "#run/model-directory";
import { findAdapter } from "#run/model-place";
import { readCommandLine, usageOf } from "./command-line.js";
import { exportAndTell } from "./export.js";
import { directoryOf, exportDtypeOf, mergeOptions, mergeRequestOf } from "./export-options.js";

/**
 * `lockstep merge-adapter`, the short form of `lockstep export` for an adapter. Returns the exit code; errors of the
 * catalogue are thrown.
 */
export async function mergeAdapterCommand(args: string[]): Promise<number> {
  const { adapterDirectory, base, ...request } = parse(args);
  const onDetail = detailOnStandardError;
  const directory = await findModelDirectory(adapterDirectory, { onDetail });
  const place = await findAdapter(directory, { base, onDetail });
  await exportAndTell(place, request);
  return 0;
}

/** @throws E_USAGE */
function parse(args: string[]) {
  const fail = usageOf("merge-adapter");
  const { values, positionals } = readCommandLine(args, mergeOptions, fail);
  const [adapterDirectory, outDirectory, ...rest] = positionals;
  if (adapterDirectory === undefined || outDirectory === undefined || rest.length > 0) {
    return fail("it takes an adapter's directory and a new one");
  }
  return {
    ...({ adapterDirectory, format: "safetensors", base: values.base } as const),
    directory: directoryOf(outDirectory, fail),
    dtype: exportDtypeOf(values.dtype, "safetensors", fail),
    ...mergeRequestOf(values, fail),
  };
}
