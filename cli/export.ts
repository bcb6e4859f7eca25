import { parseSizeBytes } from "#lib/config/index";
import type { Nf4Form } from "#lib/core/nf4";
import { printable } from "#lib/core/terminal-text";
import { type Exported, exportFormats, exportModel, type ExportOptions } from "#run/export-model";
import { detailOnStandardError } from "#run/model-directory";
import { findModel, type ModelPlace } from "#run/model-place";
import { readCommandLine, usageOf } from "./command-line.js";
import { directoryOf, exportDtypeOf, mergeOptions, mergeRequestOf } from "./export-options.js";
import { undoneBySignals } from "./undone-by-signals.js";

/** `lockstep export`. Returns the exit code; errors of the catalogue are thrown. */
export async function exportCommand(args: string[]): Promise<number> {
  const { model, base, revision, ...request } = parse(args);
  const place = await findModel(model, { base, revision, onDetail: detailOnStandardError });
  await exportAndTell(place, request);
  return 0;
}

/** What is asked of an export beside its model. */
interface ExportRequest {
  readonly directory: string;
  readonly format: ExportOptions["format"];
  readonly dtype: ExportOptions["dtype"];
  readonly quantisation: Nf4Form | undefined;
  readonly maxShardBytes?: number | undefined;
  readonly maxLogitDifference: number | undefined;
}

/** Exports a model, and prints what became of it. */
export async function exportAndTell(place: ModelPlace, request: ExportRequest): Promise<void> {
  if (place.adapter === undefined) refuseMerging(request);
  const exported = await undoneBySignals(request.directory, () =>
    exportModel(place, { ...request, onDetail: detailOnStandardError }),
  );
  for (const warning of exported.warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stdout.write(`${printable(summaryOf(place, request, exported))}\n`);
}

/** @throws E_USAGE for what is asked of merging, where there is no adapter */
function refuseMerging({ quantisation, maxLogitDifference }: ExportRequest): void {
  const fail = usageOf("export");
  if (quantisation !== undefined) {
    fail("--load-in-4bit is for adapters, whose base it takes through 4 bits");
  }
  if (maxLogitDifference !== undefined) {
    fail("--max-logit-difference is for adapters: nothing is merged into a model, nor compared");
  }
}

function summaryOf(
  { adapter, modelDirectory }: ModelPlace,
  { directory, quantisation }: ExportRequest,
  { dtype, numParameters, merged }: Exported,
): string {
  const millions = (numParameters / 1e6).toFixed(1);
  const what = `${millions} million parameters (${dtype})`;
  if (merged === undefined) return `Wrote ${directory}: ${what} of ${modelDirectory}.`;
  const { numModules, difference } = merged;
  const through = quantisation === undefined ? "" : ` as of 4 bits (${quantisation})`;
  const distance =
    difference === undefined
      ? ""
      : ` Its logits differ from the adapter's by up to ${difference.difference.toExponential(1)}; the largest is ${difference.logit.toPrecision(3)}.`;
  return `Wrote ${directory}: ${adapter?.base}${through} with the adapter of ${numModules} modules added, ${what}.${distance}`;
}

const isFormat = (text: string): text is ExportOptions["format"] =>
  exportFormats.some((each) => each === text);

/** @throws E_USAGE */
function parse(args: string[]) {
  const fail = usageOf("export");
  const options = {
    ...mergeOptions,
    revision: { type: "string" },
    format: { type: "string", default: exportFormats[0] },
    "output-dir": { type: "string" },
    "max-shard-size": { type: "string" },
  } as const;
  const { values, positionals } = readCommandLine(args, options, fail);
  const [model, ...rest] = positionals;
  if (model === undefined || rest.length > 0) return fail("it takes one model");
  const { base, revision, dtype, "output-dir": directory, "max-shard-size": size } = values;
  if (directory === undefined) return fail("--output-dir names a new directory");
  const format = values.format.toLowerCase();
  if (!isFormat(format)) {
    return fail(`--format is one of ${exportFormats.join(", ")}, not ${values.format}`);
  }
  if (size !== undefined && format === "gguf") {
    return fail("--max-shard-size is of safetensors; a GGUF file is one");
  }
  const maxShardBytes = size === undefined ? undefined : parseSizeBytes(size);
  if (size !== undefined && maxShardBytes === undefined) {
    return fail(`--max-shard-size is a size such as 5GB, not ${size}`);
  }
  return {
    ...{ model, base, revision, format, maxShardBytes },
    directory: directoryOf(directory, fail),
    dtype: exportDtypeOf(dtype, format, fail),
    ...mergeRequestOf(values, fail),
  };
}
