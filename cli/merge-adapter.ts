import { parseArgs } from "node:util";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { detailOnStandardError, findModelDirectory } from "#run/model-directory";
import { findAdapter } from "#run/model-place";
import {
  dtypeOf,
  exportAndTell,
  logitBoundOf,
  quantisationOf,
  quantisationOptions,
} from "./export.js";

/**
 * `lockstep merge-adapter`, the short form of `lockstep export` for an adapter. Returns the exit code; errors of the
 * catalogue are thrown.
 */
export async function mergeAdapterCommand(args: string[]): Promise<number> {
  const { adapterDirectory, base, ...request } = parse(args);
  const onDetail = detailOnStandardError;
  const directory = await findModelDirectory(adapterDirectory, { onDetail });
  const place = await findAdapter(directory, { base, onDetail });
  await exportAndTell(place, { ...request, format: "safetensors" });
  return 0;
}

function parse(args: string[]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        base: { type: "string" },
        dtype: { type: "string" },
        "max-logit-difference": { type: "string" },
        ...quantisationOptions,
      },
    });
    const [adapterDirectory, outDirectory, ...rest] = positionals;
    const { base, dtype } = values;
    if (adapterDirectory === undefined || outDirectory === undefined || rest.length > 0) {
      throw new TypeError("it takes an adapter's directory and a new one");
    }
    return {
      quantisation: quantisationOf(values),
      adapterDirectory,
      directory: expandHome(outDirectory),
      base,
      dtype: dtypeOf(dtype),
      maxLogitDifference: logitBoundOf(values["max-logit-difference"]),
    };
  } catch (error) {
    // parseArgs throws a TypeError for an unknown option.
    if (!(error instanceof TypeError)) throw error;
    throw new LockstepError("E_USAGE", { command: "merge-adapter", problem: error.message });
  }
}
