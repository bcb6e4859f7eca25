import { likelyName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { show } from "./show.js";

/** Formats of rows. */
export const formatNames = [
  ...(["text", "prompt-completion", "messages", "alpaca", "sharegpt", "classification"] as const),
  "preference",
] as const;

/** What a column of a data set holds: LLaMA-Factory's names, those of classifiers and of pairs. */
export type ColumnRole =
  | "text"
  | "pair"
  | "label"
  | "prompt"
  | "query"
  | "response"
  | "history"
  | "messages"
  | "system"
  | "tools"
  | "chosen"
  | "rejected"
  | "margin"
  | "weight";

/** What each name under `columns` stands for: a format's own names of its columns say the same. */
export const columnRoles: Readonly<Record<string, ColumnRole>> = Object.freeze({
  text: "text",
  sentence: "text",
  sentence1: "text",
  pair: "pair",
  sentence2: "pair",
  label: "label",
  prompt: "prompt",
  instruction: "prompt",
  query: "query",
  input: "query",
  response: "response",
  completion: "response",
  output: "response",
  history: "history",
  messages: "messages",
  conversations: "messages",
  system: "system",
  tools: "tools",
  chosen: "chosen",
  rejected: "rejected",
  margin: "margin",
  weight: "weight",
});

/** Our names of columns, and the data's. */
export type ColumnMapping = Readonly<Record<string, string>>;

/**
 * Checks what is written under `columns`.
 *
 * @param key where it stands, for messages
 * @throws E_CONFIG_UNKNOWN_KEY, E_CONFIG_INVALID, E_CONFIG_CONFLICT
 */
export function readColumns(
  value: Readonly<Record<string, unknown>>,
  { key, where }: { key: string; where: string },
): ColumnMapping {
  const mapping: Record<string, string> = {};
  const names = new Map<string, string>();
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  for (const [name, column] of Object.entries(value)) {
    if (column === null) continue;
    const full = `${key}.${name}`;
    const role = Object.hasOwn(columnRoles, name) ? columnRoles[name] : undefined;
    if (role === undefined) {
      const nearest = likelyName(name, Object.keys(columnRoles)) ?? "";
      throw new LockstepError("E_CONFIG_UNKNOWN_KEY", { key: full, where, nearest });
    }
    if (typeof column !== "string" || column === "") {
      const facts = { key: full, expected: "the name of a column", got: show(column), where };
      throw new LockstepError("E_CONFIG_INVALID", facts);
    }
    for (const taken of [role, `column ${column}`]) {
      const before = names.get(taken);
      if (before !== undefined) {
        const reason = taken === role ? "both name one part of a row" : `both name ${column}`;
        conflict(`${key}.${before} and ${full}`, reason);
      }
      names.set(taken, name);
    }
    mapping[name] = column;
  }
  return Object.freeze(mapping);
}
