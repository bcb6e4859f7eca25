import type { Precision } from "#lib/core/dtype";
import { hasBf16Products, readProcessor } from "#lib/core/processor";

/** What both sides of a row compute in: what a person would take on this processor. */
export const precisionOfProcessor = (): Precision =>
  hasBf16Products(readProcessor()) ? "bf16" : "fp32";

/** A bar on processors that have products of bfloat16, and on those that have not. */
export type Bars = Readonly<Record<Precision, number>>;
