import type { ResolvedConfig } from "#lib/config/index";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";

/** What `bf16: auto` is in a run. */
export interface PrecisionChoice {
  readonly bf16: boolean;
  /** The device, or the checkpoint, that decided. */
  readonly reason: string;
}

/**
 * What decides where the configuration leaves it open; undefined where it does not.
 *
 * @param choose asked then; by default this processor answers
 */
export async function choosePrecision(
  { bf16 }: ResolvedConfig,
  choose: () => Promise<PrecisionChoice> = ofProcessor,
): Promise<PrecisionChoice | undefined> {
  return bf16 === "auto" ? choose() : undefined;
}

async function ofProcessor(): Promise<PrecisionChoice> {
  const processor = readProcessor();
  return { bf16: hasBf16Products(processor), reason: processorKind(processor) };
}

/** For a person, where something was left open. */
export const describeChoice = (choice: PrecisionChoice | undefined): string[] =>
  choice === undefined
    ? []
    : [
        `precision: ${choice.bf16 ? "bfloat16 products" : "float32"} (bf16: auto; ${choice.reason})`,
      ];
