import { jsonText } from "#lib/data/jinja/index";
import { fieldsOf, plainNumber, templateValue } from "#lib/data/json-data";
import { alpacaExample, sharegptExample } from "./conversations.js";
import {
  type ConversationExample,
  type FormatOptions,
  type PairExample,
  type PairSide,
  RawFields,
} from "./example.js";
import { messagesExample } from "./messages.js";
import { numberText } from "./weights.js";

/**
 * A prompt with a chosen and a rejected answer: TRL's `prompt`, `chosen`, `rejected`, texts or messages, whose prompt
 * may be what both sides begin with; or LLaMA-Factory's, Alpaca's and ShareGPT's prompts with an answer each.
 *
 * @throws E_DATA_ROW_FORMAT, E_DATA_NO_ANSWER
 */
export function preferenceExample(raw: RawFields, options: FormatOptions): PairExample {
  const { columns = {} } = options;
  const fields = [columns.chosen ?? "chosen", columns.rejected ?? "rejected"] as const;
  for (const [field, what] of [
    [fields[0], "chosen answer"],
    [fields[1], "rejected answer"],
  ] as const) {
    const value = raw.get(field);
    if (value === undefined || value === "") throw raw.noAnswer(what);
    if (Array.isArray(value) && value.length === 0) throw raw.noAnswer(what);
  }
  const [chosen, rejected] = sidesOf(raw, options, fields);
  return { kind: "pair", chosen, rejected, margin: marginOf(raw, options) };
}

function sidesOf(
  raw: RawFields,
  options: FormatOptions,
  fields: readonly [chosen: string, rejected: string],
): readonly [PairSide, PairSide] {
  const prompts = options.prompts ?? promptsOf(raw, options);
  if (prompts === undefined) return plainSides(raw, options, fields);
  const sideOf = (field: string): PairSide => {
    const { columns = {} } = options;
    if (prompts === "alpaca") {
      const read = { ...columns, prompt: questionOf(raw, options), response: field };
      return lastAlone(alpacaExample(raw, { ...options, columns: read }));
    }
    const list = listOf(raw, options);
    const before = raw.get(list);
    if (!Array.isArray(before)) throw raw.wrong(`${JSON.stringify(list)} is not a list`);
    const answer = raw.get(field);
    const answers: readonly unknown[] = Array.isArray(answer) ? answer : [answer];
    if (typeof answers[0] !== "object") {
      throw raw.wrong(
        `${JSON.stringify(field)} is not a message, and its prompt is a list of them`,
      );
    }
    const whole = [...(before as unknown[]), ...answers];
    const extended = new RawFields(raw.format, raw.place, { ...raw.fields, [list]: whole });
    const read = { ...options, columns: { ...columns, messages: list } };
    const example =
      prompts === "sharegpt" ? sharegptExample(extended, read) : messagesExample(extended, read);
    return lastAlone(example);
  };
  return [sideOf(fields[0]), sideOf(fields[1])];
}

/**
 * How the prompt stands in a row; undefined: as TRL has it. A column `prompt` goes before lists of messages, which
 * hold the chosen answer too where a row has both.
 */
function promptsOf(raw: RawFields, { columns = {} }: FormatOptions): FormatOptions["prompts"] {
  const has = (field: string): boolean => raw.get(field) !== undefined;
  const isPlain = has(columns.prompt ?? "prompt") && columns.messages === undefined;
  const isAlpaca =
    columns.query !== undefined ||
    columns.history !== undefined ||
    // A system message belongs to a chat: the prompt is its question.
    (isPlain &&
      columns.system !== undefined &&
      typeof raw.get(columns.chosen ?? "chosen") === "string") ||
    (columns.prompt === undefined && has("instruction") && !has("prompt"));
  if (isAlpaca) return "alpaca";
  if (isPlain) return undefined;
  const list = columns.messages ?? ["conversations", "messages"].find(has);
  if (list === undefined) return undefined;
  const [first] = (raw.get(list) ?? []) as readonly unknown[];
  const isMessage = typeof first === "object" && first !== null && "role" in first;
  return isMessage ? "messages" : "sharegpt";
}

/** The columns that are read of rows like this one. */
export function preferenceColumns(raw: RawFields, options: FormatOptions): readonly string[] {
  const { columns = {} } = options;
  const { chosen = "chosen", rejected = "rejected", system = "system", tools = "tools" } = columns;
  const answers = [chosen, rejected, ...(options.ignoresMargins ? [] : [marginColumn(options)])];
  switch (options.prompts ?? promptsOf(raw, options)) {
    case "alpaca": {
      const { query = "input", history = "history" } = columns;
      return [...answers, questionOf(raw, options), query, history, system, tools];
    }
    case "sharegpt":
      return [...answers, listOf(raw, options), system, tools];
    case "messages":
      // OpenAI's older name of tools.
      return [...answers, listOf(raw, options), tools, "functions"];
    default: {
      const ofMessages = Array.isArray(raw.get(chosen)) ? [tools, "functions"] : [];
      return [...answers, columns.prompt ?? "prompt", ...ofMessages];
    }
  }
}

/** The column of a row's messages. */
const listOf = (raw: RawFields, { columns = {} }: FormatOptions): string =>
  columns.messages ?? (raw.get("conversations") === undefined ? "messages" : "conversations");

/** The column of a row's question, where it has Alpaca's form. */
const questionOf = (raw: RawFields, { columns = {} }: FormatOptions): string =>
  columns.prompt ?? (raw.get("prompt") === undefined ? "instruction" : "prompt");

/** The answer to a conversation is its last message. */
const lastAlone = (example: ConversationExample): ConversationExample => ({
  ...example,
  isLearnt: example.messages.map((_, i) => i === example.messages.length - 1),
});

/** TRL's: texts, or lists of messages. */
function plainSides(
  raw: RawFields,
  options: FormatOptions,
  fields: readonly [chosen: string, rejected: string],
): readonly [PairSide, PairSide] {
  const { columns = {} } = options;
  const promptField = columns.prompt ?? "prompt";
  const prompt = raw.get(promptField);
  const [chosen, rejected] = fields.map((field) => raw.get(field));
  if (Array.isArray(chosen) && Array.isArray(rejected)) {
    if (columns.system !== undefined) {
      throw raw.wrong(
        "columns names a system message, and the answers are messages, which say their own",
      );
    }
    const [before, rest] = messagesBefore(raw, promptField, [chosen, rejected]);
    const sideOf = (side: readonly unknown[]): ConversationExample => {
      const whole = messagesExample(raw, options, [...before, ...side.slice(rest)]);
      const isLearnt = whole.isLearnt.map((learnt, i) => learnt && i >= before.length);
      if (!isLearnt.includes(true)) throw raw.noAnswer();
      return { ...whole, isLearnt };
    };
    return [sideOf(chosen), sideOf(rejected)];
  }
  if (columns.tools !== undefined) {
    throw raw.wrong("columns names tools, and the answers are texts, which call none");
  }
  const texts = [raw.string(fields[0]), raw.string(fields[1])] as const;
  const before = prompt === undefined ? commonText(...texts) : raw.string(promptField);
  const start = prompt === undefined ? before.length : 0;
  const sideOf = (text: string): PairSide => ({
    kind: "completion",
    prompt: before,
    completion: text.slice(start),
  });
  return [sideOf(texts[0]), sideOf(texts[1])];
}

/**
 * The messages of a prompt, and how many of each side they are too: of sides that are whole chats, which some data
 * sets have beside the prompt, or beside its text (UltraFeedback).
 *
 * @throws E_DATA_ROW_FORMAT
 */
function messagesBefore(
  raw: RawFields,
  field: string,
  sides: readonly [chosen: readonly unknown[], rejected: readonly unknown[]],
): readonly [before: readonly unknown[], rest: number] {
  const prompt = raw.get(field);
  const common = commonMessages(...sides);
  if (prompt === undefined) return [common, common.length];
  if (Array.isArray(prompt)) {
    const isWhole =
      prompt.length <= common.length && prompt.every((message, i) => isSame(message, common[i]));
    return [prompt as unknown[], isWhole ? prompt.length : 0];
  }
  if (common.some((message) => fieldsOf(message)?.["content"] === prompt))
    return [common, common.length];
  throw raw.wrong(
    `${JSON.stringify(field)} is text, and the answers are lists of messages that do not begin with it`,
  );
}

/** What both lists begin with; the last message of either is an answer. */
function commonMessages(
  chosen: readonly unknown[],
  rejected: readonly unknown[],
): readonly unknown[] {
  const most = Math.min(chosen.length, rejected.length) - 1;
  let count = 0;
  while (count < most && isSame(chosen[count], rejected[count])) count++;
  return chosen.slice(0, count);
}

const isSame = (...messages: readonly [unknown, unknown]): boolean => {
  const [one, other] = messages.map((message) => jsonText(templateValue(message)));
  return one === other;
};

/** What both texts begin with, as TRL takes it: a blank before the first difference belongs to the answers. */
function commonText(chosen: string, rejected: string): string {
  const most = Math.min(chosen.length, rejected.length) - 1;
  let count = 0;
  while (count < most && chosen[count] === rejected[count]) count++;
  // Half of a character is none.
  if (/[\uD800-\uDBFF]/.test(chosen[count - 1] ?? "")) count--;
  if (chosen[count - 1] === " ") count--;
  return chosen.slice(0, count);
}

const marginColumn = ({ columns = {} }: FormatOptions): string => columns.margin ?? "margin";

/** @throws E_DATA_ROW_FORMAT */
function marginOf(raw: RawFields, options: FormatOptions): number | null {
  if (options.ignoresMargins === true) return null;
  const column = marginColumn(options);
  const written = raw.get(column);
  if (written === undefined || written === "") return null;
  const given = plainNumber(written);
  const margin = typeof given === "string" && numberText.test(given.trim()) ? Number(given) : given;
  if (typeof margin === "number" && Number.isFinite(Math.fround(margin))) return margin;
  throw raw.wrong(`the margin in ${JSON.stringify(column)} is not a number`);
}
