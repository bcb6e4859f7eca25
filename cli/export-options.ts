import { bytesPerElement, type FloatDtype } from "#lib/core/dtype";
import { expandHome } from "#lib/core/home-path";
import type { Nf4Form } from "#lib/core/nf4";
import type { ExportOptions } from "#run/export-model";

type Fail = (problem: string) => never;

/** Options of every command that writes an adapter into its base model. */
export const mergeOptions = {
  base: { type: "string" },
  dtype: { type: "string" },
  "max-logit-difference": { type: "string" },
  "load-in-4bit": { type: "boolean", default: false },
  "bnb-4bit-use-double-quant": { type: "boolean", default: false },
} as const;

interface MergeValues {
  readonly "max-logit-difference"?: string | undefined;
  readonly "load-in-4bit": boolean;
  readonly "bnb-4bit-use-double-quant": boolean;
}

/** What these options say of how an adapter is merged. @throws E_USAGE */
export function mergeRequestOf(
  values: MergeValues,
  fail: Fail,
): { readonly quantisation: Nf4Form | undefined; readonly maxLogitDifference: number | undefined } {
  const { "load-in-4bit": is4Bit, "bnb-4bit-use-double-quant": isDouble } = values;
  if (isDouble && !is4Bit) return fail("--bnb-4bit-use-double-quant is for --load-in-4bit");
  return {
    quantisation: is4Bit ? (isDouble ? "nf4-double" : "nf4") : undefined,
    maxLogitDifference: logitBoundOf(values["max-logit-difference"], fail),
  };
}

/** A number from 0, or none. */
function logitBoundOf(text: string | undefined, fail: Fail): number | undefined {
  if (text === undefined) return undefined;
  if (text === "none") return Number.POSITIVE_INFINITY;
  const bound = Number(text);
  if (text.trim() !== "" && bound >= 0 && Number.isFinite(bound)) return bound;
  return fail(`--max-logit-difference is a number from 0, or none, not ${text}`);
}

/** How people and other programs write the types. */
const spellings: Readonly<Record<string, FloatDtype>> = {
  ...{ f32: "float32", fp32: "float32", float: "float32" },
  ...{ f16: "float16", fp16: "float16", half: "float16" },
  bf16: "bfloat16",
};
const floatDtypes = Object.keys(bytesPerElement) as FloatDtype[];

/** A type of `--dtype`, in one of its spellings. @throws E_USAGE */
export function floatDtypeOf(text: string, fail: Fail): FloatDtype {
  const name = text.toLowerCase();
  const found = floatDtypes.find((dtype) => dtype === name);
  if (found !== undefined) return found;
  if (Object.hasOwn(spellings, name)) return spellings[name] as FloatDtype;
  if (name === "q8_0") return fail("--dtype q8_0 is of GGUF files, and safetensors are written");
  return fail(`--dtype is one of ${floatDtypes.join(", ")}, not ${text}`);
}

/** `--dtype` of a format's weights. @throws E_USAGE */
export function exportDtypeOf(
  text: string | undefined,
  format: ExportOptions["format"],
  fail: Fail,
): ExportOptions["dtype"] {
  if (text === undefined) return undefined;
  if (format !== "gguf") return floatDtypeOf(text, fail);
  if (text.toLowerCase() === "q8_0") return "q8_0";
  return floatDtypeOf(text, () =>
    fail(`--dtype of GGUF is one of ${[...floatDtypes, "q8_0"].join(", ")}, not ${text}`),
  );
}

/** A directory that is to be written. @throws E_USAGE for none */
export function directoryOf(given: string, fail: Fail): string {
  return given === "" ? fail("the name of the new directory is empty") : expandHome(given);
}
