import type { LabelReader } from "#lib/core/labels";
import type { RawExample } from "#lib/data/readers/index";
import { chatExample, instructionExample } from "./entry-examples.js";
import { alpacaExample, sharegptExample } from "./conversations.js";
import {
  type CompletionExample,
  type ConversationExample,
  type DatasetFormat,
  type Example,
  type FormatOptions,
  RawFields,
} from "./example.js";
import { classificationExample } from "./labelled.js";
import { messagesExample } from "./messages.js";
import { preferenceExample } from "./preference.js";

export * from "./example.js";
export { exampleWeight } from "./weights.js";
export { LaterColumns, type ExampleReading, readingOf, recogniseFormat } from "./recognise.js";

const parsers: Readonly<
  Record<
    DatasetFormat,
    (row: RawFields, options: FormatOptions, readLabel: LabelReader["read"]) => Example
  >
> = Object.freeze({
  text: (raw, { columns = {} }) => ({ kind: "text", text: raw.string(columns.text ?? "text") }),
  "prompt-completion": promptCompletionExample,
  messages: (raw, options) =>
    options.chat === undefined
      ? messagesExample(raw, options)
      : chatExample(raw, options, options.chat),
  alpaca: alpacaExample,
  sharegpt: sharegptExample,
  classification: classificationExample,
  preference: preferenceExample,
});

/** Of who reads no labels. */
const noLabel: LabelReader["read"] = () => ({ problem: "is read by no objective" });

/** @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER */
export function parseExample(
  { place, fields }: RawExample,
  format: DatasetFormat,
  options: FormatOptions = {},
  readLabel: LabelReader["read"] = noLabel,
): Example {
  return parsers[format](new RawFields(format, place, fields), options, readLabel);
}

/** Both are texts, or both are lists of messages; of those, the completion's answers are learnt. */
function promptCompletionExample(
  raw: RawFields,
  options: FormatOptions,
): CompletionExample | ConversationExample {
  const { columns = {}, instructions } = options;
  if (instructions !== undefined) return instructionExample(raw, instructions);
  const [promptField, completionField] = [
    columns.prompt ?? "prompt",
    columns.response ?? "completion",
  ];
  const prompt = raw.get(promptField);
  if (!Array.isArray(prompt)) {
    const completion = raw.optionalString(completionField);
    if (completion === "") throw raw.noAnswer();
    return { kind: "completion", prompt: raw.string(promptField), completion };
  }
  const completion = raw.get(completionField);
  if (!Array.isArray(completion) || completion.length === 0) throw raw.noAnswer();
  const whole = messagesExample(raw, options, [
    ...(prompt as unknown[]),
    ...(completion as unknown[]),
  ]);
  const isLearnt = whole.isLearnt.map((learnt, i) => learnt && i >= prompt.length);
  if (!isLearnt.includes(true)) throw raw.noAnswer();
  return { ...whole, isLearnt };
}
