import type { ConfigKey } from "#lib/config/fields";
import { parametersKinds } from "#lib/parameters/index";

/**
 * What becomes of a key that Lockstep does not own. A key that could change results is never dropped
 * silently.
 */
export type ForeignKey =
  /** An older or a foreign name of one of our keys. */
  | {
      readonly kind: "renamed";
      readonly to: ConfigKey;
      /** The value under the new name; undefined when the value says nothing. */
      readonly convert?: (value: unknown) => unknown;
      /** A value of `to` that says nothing beside this key: v4's `warmup_ratio` beats `warmup_steps: 0`. */
      readonly overrides?: unknown;
      /** What is not quite the same under the new name. */
      readonly difference?: string;
      /** The only values that there is a name for; others are refused for `reason`. */
      readonly only?: { readonly values: readonly unknown[]; readonly reason: string };
      /** What stands beside a value of `to` that is there too; undefined where they do not go together. */
      readonly merge?: (before: unknown, converted: unknown) => unknown;
    }
  /** Read beside other keys of its tool, in tool.ts. */
  | { readonly kind: "joint"; readonly meaning: string }
  /** Cannot change results: accepted, with a warning unless it holds its default. */
  | { readonly kind: "ignored"; readonly default: unknown; readonly reason: string }
  /** Would change results: only the listed values, which do what Lockstep does anyway. */
  | { readonly kind: "fixed"; readonly allowed: readonly unknown[]; readonly reason: string }
  /** An option of a way of fine-tuning that is not here: without effect beside one that is. */
  | { readonly kind: "method"; readonly method: string };

export type ForeignKeys = Readonly<Record<string, ForeignKey>>;

export const renamed = (
  to: ConfigKey,
  convert?: (value: unknown) => unknown,
  overrides?: unknown,
): ForeignKey => ({
  kind: "renamed",
  to,
  ...(convert === undefined ? {} : { convert }),
  ...(overrides === undefined ? {} : { overrides }),
});

/** A foreign name of what is not quite the same here. */
export const renamedUnlike = (to: ConfigKey, difference: string): ForeignKey => ({
  kind: "renamed",
  to,
  difference,
});

/** A foreign name whose words have each a value of ours; other words are refused. */
export const reworded = (
  to: ConfigKey,
  words: Readonly<Record<string, unknown>>,
  reason: string,
): ForeignKey => ({
  kind: "renamed",
  to,
  convert: (value) => words[String(value)],
  only: { values: Object.keys(words), reason },
});

export const joint = (meaning: string): ForeignKey => ({ kind: "joint", meaning });

export const ignored = (reason: string, defaultValue: unknown = null): ForeignKey => ({
  kind: "ignored",
  default: defaultValue,
  reason,
});

export const fixed = (allowed: readonly unknown[], reason: string): ForeignKey => ({
  kind: "fixed",
  allowed,
  reason,
});

/** The same rule for several keys. */
export function each(names: string, rule: ForeignKey): Record<string, ForeignKey> {
  return Object.fromEntries(
    names
      .trim()
      .split(/\s+/)
      .map((name) => [name, rule]),
  );
}

/** Options of one way of fine-tuning. */
export const method = (name: string, keys: string): Record<string, ForeignKey> =>
  each(keys, { kind: "method", method: name });

export const fullOnly = parametersKinds.map(({ summary }) => summary).join(", or ");
export const answersOnly = "where rows have answers, the answers alone are learnt";
export const only4bit =
  "frozen weights are quantised to 4 bits (load_in_4bit), in type nf4, or not at all";
export const notHere = "this version cannot do it";
export const otherHub = "models come from the Hugging Face Hub only";
export const dashboards = "metrics are served for Prometheus";
