import {
  type ArgumentRule,
  aFunction,
  positiveInteger,
  text,
  trueOrFalse,
} from "./check-arguments.js";
import type { ModelOptions } from "./model-place.js";

/** What a model of texts is opened with. */
export interface TextModelOptions extends ModelOptions {
  /** Computes products in bfloat16. @default false */
  readonly bf16?: boolean;
  /** Rows that are computed together. */
  readonly batchSize?: number;
  /** Longest row, tokens. */
  readonly maxLength?: number;
}

export const textModelRules: { readonly [K in keyof Required<TextModelOptions>]: ArgumentRule } = {
  ...{ base: text, revision: text, onDetail: aFunction },
  ...{ bf16: trueOrFalse, batchSize: positiveInteger, maxLength: positiveInteger },
};

/** A text, or two that belong together. */
export type TextOrPair = string | readonly [text: string, pair: string];
