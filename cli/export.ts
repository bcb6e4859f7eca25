import { parseArgs } from "node:util";
import { parseSizeBytes } from "#lib/config/index";
import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import type { Nf4Form } from "#lib/core/nf4";
import { printable } from "#lib/core/terminal-text";
import { type Exported, exportFormats, exportModel, type ExportOptions } from "#run/export-model";
import { detailOnStandardError } from "#run/model-directory";
import { findModel, type ModelPlace } from "#run/model-place";

/** Types of weights: those of safetensors, and of GGUF alone the quantised one. */
const ggufDtypes = [...Object.keys(bytesPerElement), "q8_0"];

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
  const { quantisation } = request;
  if (quantisation !== undefined && place.adapter === undefined) {
    const problem = "--load-in-4bit is for adapters, whose base it takes through 4 bits";
    throw new LockstepError("E_USAGE", { command: "export", problem });
  }
  const exported = await exportModel(place, { ...request, onDetail: detailOnStandardError });
  for (const warning of exported.warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stdout.write(`${printable(summaryOf(place, request, exported))}\n`);
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

/** How the base of an adapter is taken through 4 bits. */
export const quantisationOptions = {
  "load-in-4bit": { type: "boolean", default: false },
  "bnb-4bit-use-double-quant": { type: "boolean", default: false },
} as const;

/** @throws TypeError */
export function quantisationOf(
  values: Readonly<Record<keyof typeof quantisationOptions, boolean>>,
): Nf4Form | undefined {
  const isDouble = values["bnb-4bit-use-double-quant"];
  if (isDouble && !values["load-in-4bit"]) {
    throw new TypeError("--bnb-4bit-use-double-quant is for --load-in-4bit");
  }
  if (!values["load-in-4bit"]) return undefined;
  return isDouble ? "nf4-double" : "nf4";
}

/** `--max-logit-difference`: a number from 0, or none. @throws TypeError */
export function logitBoundOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (text === "none") return Number.POSITIVE_INFINITY;
  const bound = Number(text);
  if (text.trim() !== "" && bound >= 0) return bound;
  throw new TypeError(`--max-logit-difference is a number from 0, or none, not ${text}`);
}

/** `--dtype` of weights. @throws TypeError */
export function dtypeOf(text: string | undefined): FloatDtype | undefined {
  if (text === undefined || Object.hasOwn(bytesPerElement, text)) return text as FloatDtype;
  throw new TypeError(`--dtype is one of ${Object.keys(bytesPerElement).join(", ")}`);
}

/** @throws TypeError */
function ggufDtypeOf(text: string | undefined): ExportOptions["dtype"] {
  if (text === undefined || ggufDtypes.includes(text)) return text as ExportOptions["dtype"];
  throw new TypeError(`--dtype of GGUF is one of ${ggufDtypes.join(", ")}`);
}

const isFormat = (text: string): text is ExportOptions["format"] =>
  exportFormats.some((each) => each === text);

function parse(args: string[]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        base: { type: "string" },
        revision: { type: "string" },
        format: { type: "string", default: exportFormats[0] },
        dtype: { type: "string" },
        "output-dir": { type: "string" },
        "max-shard-size": { type: "string" },
        "max-logit-difference": { type: "string" },
        ...quantisationOptions,
      },
    });
    const [model, ...rest] = positionals;
    if (model === undefined || rest.length > 0) throw new TypeError("it takes one model");
    const { base, revision, format, dtype, "output-dir": directory } = values;
    if (directory === undefined) throw new TypeError("--output-dir names a new directory");
    if (!isFormat(format)) throw new TypeError(`--format is one of ${exportFormats.join(", ")}`);
    const size = values["max-shard-size"];
    const maxShardBytes = size === undefined ? undefined : parseSizeBytes(size);
    if (size !== undefined && format === "gguf") {
      throw new TypeError("--max-shard-size is of safetensors; a GGUF file is one");
    }
    if (size !== undefined && maxShardBytes === undefined) {
      throw new TypeError(`--max-shard-size is a size such as 5GB, not ${size}`);
    }
    return {
      ...{ model, base, revision, format, maxShardBytes },
      quantisation: quantisationOf(values),
      directory: expandHome(directory),
      dtype: format === "gguf" ? ggufDtypeOf(dtype) : dtypeOf(dtype),
      maxLogitDifference: logitBoundOf(values["max-logit-difference"]),
    };
  } catch (error) {
    // parseArgs throws a TypeError for an unknown option.
    if (!(error instanceof TypeError)) throw error;
    throw new LockstepError("E_USAGE", { command: "export", problem: error.message });
  }
}
