import type { LabelReader } from "#lib/core/labels";
import { plainNumber } from "#lib/data/json-data";
import type { FormatOptions, RawFields, LabelledExample } from "./example.js";

/**
 * `text` (or `sentence`), or a pair `sentence1`, `sentence2`, with a `label`, which the objective reads.
 * Blanks around a label are none of it.
 *
 * @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER
 */
export function classificationExample(
  raw: RawFields,
  { columns = {} }: FormatOptions,
  read: LabelReader["read"],
): LabelledExample {
  const single = ["text", "sentence"].find((field) => raw.get(field) !== undefined);
  const field = columns.label ?? "label";
  const written = raw.get(field);
  const value = Array.isArray(written) ? written.map(plainNumber) : written;
  const given = typeof value === "string" ? value.trim() : value;
  if (given === undefined || given === "") throw raw.noAnswer("label");
  const label = read(given);
  if ("problem" in label) throw raw.wrong(`${JSON.stringify(field)} ${label.problem}`);
  const isPair = columns.pair !== undefined || (single === undefined && columns.text === undefined);
  return {
    kind: "labelled",
    text: raw.string(columns.text ?? single ?? "sentence1"),
    pair: isPair ? raw.string(columns.pair ?? "sentence2") : null,
    ...label,
  };
}
