import { declaredKeys } from "./fields.js";
import { axolotlKeys } from "./foreign/axolotl.js";
import { llamaFactoryKeys } from "./foreign/llama-factory.js";
import { peftKeys } from "./foreign/peft.js";
import type { ForeignKeys } from "./foreign/rules.js";
import { transformersKeys } from "./foreign/transformers.js";
import { trlKeys } from "./foreign/trl.js";

/** A table without the keys that a part of a run has declared as its own. */
const withoutDeclared = (table: ForeignKeys): ForeignKeys =>
  Object.fromEntries(
    Object.entries(table).filter(([key]) => !declaredKeys.some((each) => each === key)),
  );

/** The tables by the tool whose names they hold. */
export const foreignTables: Readonly<Record<string, ForeignKeys>> = Object.freeze({
  transformers: withoutDeclared(transformersKeys),
  trl: withoutDeclared(trlKeys),
  peft: withoutDeclared(peftKeys),
  "LLaMA-Factory": withoutDeclared(llamaFactoryKeys),
  axolotl: withoutDeclared(axolotlKeys),
});

/** Every key that Lockstep knows and does not own. A name is in one table only. */
export const foreignKeys: ForeignKeys = Object.freeze(
  Object.assign({}, ...Object.values(foreignTables)) as ForeignKeys,
);
