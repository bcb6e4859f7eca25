import type { LabelReader } from "#lib/core/labels";
import type { RawRow } from "#lib/data/readers/index";
import { chatRow, instructionRow } from "./entry-rows.js";
import { alpacaRow, sharegptRow } from "./conversations.js";
import {
  type CompletionExample,
  type ConversationExample,
  type DatasetFormat,
  type Example,
  type FormatOptions,
  FormatRow,
} from "./example.js";
import { classificationRow } from "./labelled.js";
import { messagesRow } from "./messages.js";

export * from "./example.js";
export { LaterColumns, type RowReading, readingOf, recogniseFormat } from "./recognise.js";

const parsers: Readonly<
  Record<
    DatasetFormat,
    (row: FormatRow, options: FormatOptions, readLabel: LabelReader["read"]) => Example
  >
> = Object.freeze({
  text: (row, { columns = {} }) => ({ kind: "text", text: row.string(columns.text ?? "text") }),
  "prompt-completion": promptCompletionRow,
  messages: (row, options) =>
    options.chat === undefined ? messagesRow(row, options) : chatRow(row, options, options.chat),
  alpaca: alpacaRow,
  sharegpt: sharegptRow,
  classification: classificationRow,
});

/** Of who reads no labels. */
const noLabel: LabelReader["read"] = () => ({ problem: "is read by no objective" });

/** @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER */
export function parseExample(
  { place, fields }: RawRow,
  format: DatasetFormat,
  options: FormatOptions = {},
  readLabel: LabelReader["read"] = noLabel,
): Example {
  return parsers[format](new FormatRow(format, place, fields), options, readLabel);
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
