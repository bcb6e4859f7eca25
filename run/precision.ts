import type { ResolvedConfig, SettledConfig } from "#lib/config/index";
import { type HalfTypes, type Precision, precisionOf } from "#lib/core/dtype";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";

/** What `bf16: auto` and `fp16: auto` may be in a run. */
export interface PrecisionChoice extends HalfTypes {
  /** The device, or the checkpoint, that decided. */
  readonly reason: string;
}

/**
 * What decides where the configuration leaves it open; undefined where it does not.
 *
 * @param choose asked then; by default this processor answers
 */
export async function choosePrecision(
  { bf16, fp16 }: ResolvedConfig,
  choose: () => Promise<PrecisionChoice> = ofProcessor,
): Promise<PrecisionChoice | undefined> {
  return bf16 === "auto" || fp16 === "auto" ? choose() : undefined;
}

async function ofProcessor(): Promise<PrecisionChoice> {
  const processor = readProcessor();
  return { bf16: hasBf16Products(processor), fp16: false, reason: processorKind(processor) };
}

const precisionNames: Readonly<Record<Precision, string>> = {
  fp32: "float32",
  bf16: "bfloat16 products",
  fp16: "float16 products",
};

/** For a person, where something was left open. */
export function describeChoice(
  choice: PrecisionChoice | undefined,
  asked: ResolvedConfig,
  settled: SettledConfig,
): string[] {
  if (choice === undefined) return [];
  const open = (["bf16", "fp16"] as const).filter((key) => asked[key] === "auto");
  const keys = open.map((key) => `${key}: auto`).join(", ");
  return [`precision: ${precisionNames[precisionOf(settled)]} (${keys}; ${choice.reason})`];
}
