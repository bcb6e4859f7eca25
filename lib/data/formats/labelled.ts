import type { LabelReader } from "#lib/core/labels";
import type { FormatOptions, FormatRow, LabelledExample } from "./example.js";

/**
 * `text` (or `sentence`), or a pair `sentence1`, `sentence2`, with a `label`, which the objective reads.
 * Blanks around a label are none of it.
 *
 * @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER
 */
export function classificationRow(
  row: FormatRow,
  { columns = {} }: FormatOptions,
  read: LabelReader["read"],
): LabelledExample {
  const single = ["text", "sentence"].find((field) => row.get(field) !== undefined);
  const field = columns.label ?? "label";
  const value = row.get(field);
  const given = typeof value === "string" ? value.trim() : value;
  if (given === undefined || given === "") throw row.noAnswer("label");
  const label = read(given);
  if ("problem" in label) throw row.wrong(`${JSON.stringify(field)} ${label.problem}`);
  const isPair = columns.pair !== undefined || (single === undefined && columns.text === undefined);
  return {
    kind: "labelled",
    text: row.string(columns.text ?? single ?? "sentence1"),
    pair: isPair ? row.string(columns.pair ?? "sentence2") : null,
    ...label,
  };
}
