import { LockstepError } from "#lib/core/errors/index";
import { cleanText } from "#lib/data/documents";
import type { RawRow } from "#lib/data/readers/index";
import { chatRow, instructionRow } from "./entry-rows.js";
import { alpacaRow, sharegptRow } from "./conversations.js";
import {
  type CompletionExample,
  type ConversationExample,
  type DatasetFormat,
  datasetFormats,
  type Example,
  type FormatOptions,
  FormatRow,
  type LabelledExample,
} from "./example.js";
import { messagesRow } from "./messages.js";

export * from "./example.js";

const parsers: Readonly<
  Record<DatasetFormat, (row: FormatRow, options: FormatOptions) => Example>
> = Object.freeze({
  text: (row, { columns = {} }) => ({
    kind: "text",
    text: cleanText(row.string(columns.text ?? "text")),
  }),
  "prompt-completion": promptCompletionRow,
  messages: (row, options) =>
    options.chat === undefined ? messagesRow(row, options) : chatRow(row, options, options.chat),
  alpaca: alpacaRow,
  sharegpt: sharegptRow,
  classification: classificationRow,
});

/** @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER */
export function parseExample(
  { place, fields }: RawRow,
  format: DatasetFormat,
  options: FormatOptions = {},
): Example {
  return parsers[format](new FormatRow(format, place, fields), options);
}

/**
 * The format of a row, by its fields: the most telling ones first, `text` alone last.
 *
 * @param textField the column of texts. @throws E_DATA_FORMAT_UNKNOWN
 */
export function recogniseFormat(
  { place, fields }: RawRow,
  { textField = "text" }: { textField?: string } = {},
): DatasetFormat {
  const has = (...names: string[]): boolean => names.every((name) => Object.hasOwn(fields, name));
  if (has("messages")) return "messages";
  if (has("conversations")) return "sharegpt";
  if (has("instruction")) return "alpaca";
  if (has("prompt", "completion")) return "prompt-completion";
  if (has("label") && (has("text") || has("sentence1") || has("sentence"))) return "classification";
  if (has(textField)) return "text";
  const names = Object.keys(fields).slice(0, 10);
  const found = names.length === 0 ? "no fields" : `the fields ${names.join(", ")}`;
  throw new LockstepError("E_DATA_FORMAT_UNKNOWN", { place, found, known: datasetFormats });
}

/** Both are texts, or both are lists of messages; of those, the completion's answers are learnt. */
function promptCompletionRow(
  row: FormatRow,
  options: FormatOptions,
): CompletionExample | ConversationExample {
  const { columns = {}, instructions } = options;
  if (instructions !== undefined) return instructionRow(row, instructions);
  const [promptField, completionField] = [
    columns.prompt ?? "prompt",
    columns.response ?? "completion",
  ];
  const prompt = row.get(promptField);
  if (!Array.isArray(prompt)) {
    const completion = row.optionalString(completionField);
    if (completion === "") throw row.noAnswer();
    return { kind: "completion", prompt: row.string(promptField), completion };
  }
  const completion = row.get(completionField);
  if (!Array.isArray(completion) || completion.length === 0) throw row.noAnswer();
  const whole = messagesRow(row, options, [...(prompt as unknown[]), ...(completion as unknown[])]);
  const isLearnt = whole.isLearnt.map((learnt, i) => learnt && i >= prompt.length);
  if (!isLearnt.includes(true)) throw row.noAnswer();
  return { ...whole, isLearnt };
}

/** `text` (or `sentence`), or a pair `sentence1`, `sentence2`, with a `label`: a class by name or by number. */
function classificationRow(row: FormatRow, { columns = {} }: FormatOptions): LabelledExample {
  const single = ["text", "sentence"].find((field) => row.get(field) !== undefined);
  const label = row.get(columns.label ?? "label");
  if (label === undefined || label === "") throw row.noAnswer();
  if (typeof label !== "string" && !Number.isFinite(label)) {
    throw row.wrong('"label" is neither text nor a number');
  }
  return {
    kind: "labelled",
    text: row.string(columns.text ?? single ?? "sentence1"),
    pair: single === undefined && columns.text === undefined ? row.string("sentence2") : null,
    label: label as string | number,
  };
}
