import { LockstepError } from "#lib/core/errors/index";
import type { ConfigKey } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { show } from "./show.js";

type Source = ReadonlyMap<string, SourcedValue>;
interface Read {
  readonly objective?: string;
  readonly loss_type?: string;
  readonly disable_dropout?: boolean;
  readonly orpo_nll_tokens?: string;
}

/** What LLaMA-Factory's `stage` and `pref_loss`, and axolotl's `rl`, mean together. */
const stages: Readonly<Record<string, Read>> = {
  ...{ sft: {}, pt: {}, dpo: { objective: "dpo" } },
  // Its trainer of reward models drops what the model and its adapters drop; that of DPO drops nothing.
  rm: { objective: "reward", disable_dropout: false },
};
const prefLosses: Readonly<Record<string, Read>> = {
  sigmoid: { loss_type: "sigmoid" },
  ipo: { loss_type: "ipo" },
  hinge: { loss_type: "hinge" },
  // Its loss of the chosen sequence is of the answer alone, TRL's of the prompt too.
  orpo: { objective: "orpo", orpo_nll_tokens: "answer" },
};
const rlNames: Readonly<Record<string, Read>> = {
  dpo: { objective: "dpo" },
  ipo: { objective: "dpo", loss_type: "ipo" },
  orpo: { objective: "orpo" },
};

/**
 * Our keys for what other tools say of preferences with keys that are read together.
 *
 * @throws E_CONFIG_UNSUPPORTED, E_CONFIG_CONFLICT
 */
export function preferenceKeys(
  file: Source,
  flags: Source,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): [ConfigKey, SourcedValue][] {
  const said = (key: string): SourcedValue | undefined => {
    const sourced = flags.get(key) ?? file.get(key);
    return (sourced?.value ?? null) === null ? undefined : sourced;
  };
  const read = (key: string, known: Readonly<Record<string, Read>>): Read => {
    const sourced = said(key);
    if (sourced === undefined) return {};
    const name = String(sourced.value);
    const meaning = Object.hasOwn(known, name) ? known[name] : undefined;
    if (meaning !== undefined) return meaning;
    throw new LockstepError("E_CONFIG_UNSUPPORTED", {
      ...{ key, value: show(sourced.value), where: sourced.where },
      reason: `of ${key} there are ${Object.keys(known).join(", ")}`,
    });
  };
  const stage = read("stage", stages);
  // A preference's loss says nothing in another stage, as in LLaMA-Factory.
  const prefLoss = said("pref_loss");
  const isOfStage = stage.objective === "dpo";
  if (prefLoss !== undefined && !isOfStage) {
    warnings.push(`${prefLoss.where}: pref_loss has no effect: it is of stage: dpo`);
  }
  const loss = isOfStage ? read("pref_loss", prefLosses) : {};
  const found = new Map<keyof Read, readonly [by: string, value: string | boolean]>();
  for (const [by, meaning] of [
    ["stage", stage],
    ["pref_loss", loss],
    ["rl", read("rl", rlNames)],
  ] as const) {
    for (const [key, value] of Object.entries(meaning)) found.set(key as keyof Read, [by, value]);
  }
  return [...found].flatMap(([key, [by, value]]): [ConfigKey, SourcedValue][] => {
    const own = given.get(key);
    const where = said(by)?.where ?? "";
    if (own === undefined) {
      warnings.push(`${where}: ${by} is read as ${key}: ${value}`);
      return [[key, { value, where: `${where}, given as ${by}` }]];
    }
    if (own.value === value || (own.value ?? null) === null) return [];
    // Not said, but what the tool does where nothing is said.
    if (key === "disable_dropout" || key === "orpo_nll_tokens") return [];
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: `${by} and ${key}`,
      reason: `both name ${key} (${where})`,
    });
  });
}
