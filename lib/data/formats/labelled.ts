import type { FormatOptions, RawFields, LabelledExample } from "./example.js";

/**
 * `text` (or `sentence`), or a pair `sentence1`, `sentence2`, with a `label`: a class by name, by number,
 * or true and false. Blanks around a label are none of it.
 *
 * @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER
 */
export function classificationExample(
  raw: RawFields,
  { columns = {} }: FormatOptions,
): LabelledExample {
  const single = ["text", "sentence"].find((field) => raw.get(field) !== undefined);
  const field = columns.label ?? "label";
  const value = raw.get(field);
  const label = typeof value === "string" ? value.trim() : value;
  if (label === undefined || label === "") throw raw.noAnswer("label");
  if (typeof label !== "string" && typeof label !== "boolean" && !Number.isFinite(label)) {
    throw raw.wrong(`${JSON.stringify(field)} is neither text nor a number`);
  }
  if (Number.isInteger(label) && !Number.isSafeInteger(label)) {
    throw raw.wrong(
      `${JSON.stringify(field)} has more digits than a number keeps: write it in quotes`,
    );
  }
  const isPair = columns.pair !== undefined || (single === undefined && columns.text === undefined);
  return {
    kind: "labelled",
    text: raw.string(columns.text ?? single ?? "sentence1"),
    pair: isPair ? raw.string(columns.pair ?? "sentence2") : null,
    label: label as string | number | boolean,
  };
}
