import type { Precision } from "#lib/core/dtype";
import { hasBf16Products, readProcessor } from "#lib/core/processor";

/** Of a row: no processor has float16 products of its own here. */
export type RowPrecision = Exclude<Precision, "fp16">;

/** What both sides of a row compute in: what a person would take on this processor. */
export const precisionOfProcessor = (): RowPrecision =>
  hasBf16Products(readProcessor()) ? "bf16" : "fp32";

/** A bar on processors that have products of bfloat16, and on those that have not. */
export type Bars = Readonly<Record<RowPrecision, number>>;
