import { LockstepError } from "#lib/core/errors/index";
import type { LoraConfig } from "./lora-config.js";
import { matchesModule, isAllLinear, type BaseModel, savedModulePaths } from "./target-modules.js";
import { moduleKeys } from "./module-names.js";

/** The head that a base model may tie to its embedding table. */
export const tiedHeadPath = "lm_head";

/**
 * What an adapter makes of a head that its base model ties to the embedding table.
 *
 * - `untouched`: neither is trained, so that they stay one.
 * - `untied`: one of them is trained or adapted, and the other stays what it was: peft's wrapper holds a
 *   copy. Merged, they are two weights.
 * - `tied`: both are trained as one, which `ensure_weight_tying` asks for.
 */
export type HeadTie = "untouched" | "untied" | "tied";

/** Names by which peft knows a table or a head where it ties them. */
const namesThatTie = ["embed_tokens", tiedHeadPath];

/**
 * @param model a base model whose configuration ties the head, without its own lm_head.weight
 * @param embeddingPath path of its embedding table
 * @throws E_ADAPTER_MODULE where peft would not tie what `ensure_weight_tying` asks for
 */
export function headTieOf(config: LoraConfig, model: BaseModel, embeddingPath: string): HeadTie {
  const { modules_to_save: saved, target_modules: targets } = config;
  const withHead = { ...model, weights: withTiedHead(model, embeddingPath) };
  const whole = saved === null ? [] : savedModulePaths(saved, withHead);
  const isSaved = [embeddingPath, tiedHeadPath].some((path) => whole.includes(path));
  const isTarget =
    targets !== null && !isAllLinear(targets) && matchesModule(targets, tiedHeadPath);
  if (!isSaved && !isTarget) return "untouched";
  if (!config.ensure_weight_tying) return "untied";
  const names = (saved ?? []).filter((name) => namesThatTie.includes(lastPart(name)));
  if (isSaved && !isTarget && names.length > 0) return "tied";
  const problem = isTarget
    ? "and ensure_weight_tying would tie its adapter to one of the embedding table, which is not here; name it in lora_modules_to_save"
    : `which peft does not tie under that name; write ${tiedHeadPath}`;
  const [key, module] = isTarget
    ? [moduleKeys.target, tiedHeadPath]
    : [moduleKeys.saved, embeddingPath];
  throw new LockstepError("E_ADAPTER_MODULE", { key, module, problem });
}

/** The weights of a model whose head is one of its own. */
export function withTiedHead(model: BaseModel, embeddingPath: string): BaseModel["weights"] {
  const head = `${tiedHeadPath}.weight`;
  const table = model.weights.find(({ name }) => name === `${embeddingPath}.weight`);
  if (table === undefined || model.weights.some(({ name }) => name === head)) return model.weights;
  return [...model.weights, { name: head, shape: table.shape }];
}

/** `modules_to_save` as peft writes it where the table and the head are trained as one: the table stands for both. */
export function tiedModulesToSave(
  saved: readonly string[],
  embeddingPath: string,
): readonly string[] {
  const withTable = saved.includes(embeddingPath) ? saved : [...saved, embeddingPath];
  return withTable.filter((name) => name !== tiedHeadPath);
}

const lastPart = (path: string): string => path.slice(path.lastIndexOf(".") + 1);
