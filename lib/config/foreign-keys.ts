import { axolotlKeys } from "./foreign/axolotl.js";
import { llamaFactoryKeys } from "./foreign/llama-factory.js";
import { peftKeys } from "./foreign/peft.js";
import type { ForeignKeys } from "./foreign/rules.js";
import { transformersKeys } from "./foreign/transformers.js";
import { trlKeys } from "./foreign/trl.js";

export type { ForeignKey } from "./foreign/rules.js";

/** The tables by the tool whose names they hold. */
export const foreignTables: Readonly<Record<string, ForeignKeys>> = Object.freeze({
  transformers: transformersKeys,
  trl: trlKeys,
  peft: peftKeys,
  "LLaMA-Factory": llamaFactoryKeys,
  axolotl: axolotlKeys,
});

/** Every key that Lockstep knows and does not own. A name is in one table only. */
export const foreignKeys: ForeignKeys = Object.freeze(
  Object.assign({}, ...Object.values(foreignTables)) as ForeignKeys,
);
