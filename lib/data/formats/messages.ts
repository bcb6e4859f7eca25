import type { ChatMessage } from "#lib/data/chat-template";
import { shownValue } from "#lib/core/shown-value";
import { isJsonObject, type JsonData, plainNumber } from "#lib/data/json-data";
import type { ConversationExample, FormatOptions, RawFields } from "./example.js";
import { checkedWeight } from "./weights.js";
import { readFunctionCall, readTools, readToolCalls } from "./tool-calls.js";

/**
 * OpenAI's `messages`: an assistant's message may carry `weight` (0: not learnt; others: how much its tokens count)
 * or LLaMA-Factory's `loss_weight`; content is text, or a list of parts of text. `function_call`, `functions` and the role
 * `function` are read as the `tool_calls`, `tools` and `tool` that came after them.
 *
 * @param messages the list; the field `messages` by default
 */
export function messagesExample(
  raw: RawFields,
  { columns = {} }: FormatOptions,
  messages: unknown = raw.get(columns.messages ?? "messages"),
): ConversationExample {
  const list = raw.dataOf(messages);
  if (!Array.isArray(list)) throw raw.wrong('"messages" is not a list');
  const weights: number[] = [];
  const read = (list as readonly JsonData[]).map((value, i): ChatMessage => {
    const name = `message ${i + 1}`;
    if (!isJsonObject(value)) throw raw.wrong(`${name} is not an object with a role`);
    const message = readMessage(raw, value, name);
    weights.push(weightOfMessage(raw, value, name, message.role === "assistant"));
    return message;
  });
  const tools = readTools(
    raw,
    columns.tools ?? "tools",
    columns.tools === undefined ? "functions" : undefined,
  );
  return conversation(raw, read, weights, tools);
}

/**
 * How much the tokens of a message count: as it says, else 1 where it is the model's, whose messages alone are learnt.
 *
 * @throws E_DATA_ROW_FORMAT for no weight, and for one of another's message that is neither 0 nor 1
 */
export function weightOfMessage(
  raw: RawFields,
  message: ReadonlyMap<string, JsonData>,
  name: string,
  isModels: boolean,
): number {
  const weight = checkedWeight(raw, givenWeight(raw, message, name), `the weight of ${name}`);
  if (isModels) return weight;
  if (weight === 0 || weight === 1) return 0;
  throw raw.wrong(`${name} has the weight ${weight}, and only what the assistant says is learnt`);
}

/** What a message says by either name of a weight; 1 where it says nothing. @throws E_DATA_ROW_FORMAT where both differ */
export function givenWeight(
  raw: RawFields,
  message: ReadonlyMap<string, JsonData>,
  name: string,
): unknown {
  const given = ["weight", "loss_weight"].flatMap((field) => {
    const value = plainNumber(message.get(field) ?? null);
    return value === null ? [] : [value];
  });
  if (new Set(given).size > 1) {
    const shown = given.map((value) => shownValue(value)).join(" and the loss_weight ");
    throw raw.wrong(`${name} has the weight ${shown}`);
  }
  return given[0] ?? 1;
}

/** Fields of a message with something that no text of a template says. */
const unreadable = ["refusal", "audio", "images", "videos"];
const thoughtFields = ["reasoning_content", "thinking", "reasoning"];

function readMessage(
  raw: RawFields,
  fields: ReadonlyMap<string, JsonData>,
  name: string,
): ChatMessage {
  const role = fields.get("role");
  if (typeof role !== "string" || role === "")
    throw raw.wrong(`${name} is not an object with a role`);
  for (const field of unreadable) {
    if (!isNothing(fields.get(field) ?? null)) {
      throw raw.wrong(`${name} has ${JSON.stringify(field)}, which is not read`);
    }
  }
  const calls = callsOf(raw, fields, name);
  const thoughts = thoughtsOf(raw, fields, name);
  if (!fields.has("content") && calls === undefined && thoughts === undefined) {
    throw raw.wrong(`${name} has neither content nor tool_calls`);
  }
  const message: Record<string, JsonData> = {};
  for (const [field, value] of fields) {
    if (field === "weight" || field === "loss_weight") continue;
    if (field === "content") message[field] = contentOf(raw, value, name);
    else if (field === "function_call" || field === "tool_calls") {
      if (calls !== undefined) message["tool_calls"] = calls;
    } else message[field] = value;
  }
  return { ...message, role: role === "function" ? "tool" : role };
}

function callsOf(
  raw: RawFields,
  fields: ReadonlyMap<string, JsonData>,
  name: string,
): JsonData | undefined {
  const given = fields.get("tool_calls");
  const calls = given === undefined ? undefined : readToolCalls(raw, given, name);
  const legacy = fields.get("function_call");
  if (legacy === undefined) return calls;
  if (Array.isArray(calls) && calls.length > 0) {
    throw raw.wrong(`${name} has both tool_calls and a function_call`);
  }
  return readFunctionCall(raw, legacy, name);
}

/** What a message thinks, by whichever name. @throws E_DATA_ROW_FORMAT where names say different things */
function thoughtsOf(
  raw: RawFields,
  fields: ReadonlyMap<string, JsonData>,
  name: string,
): string | undefined {
  const given = thoughtFields.filter((field) => fields.has(field));
  const texts = new Set(given.map((field) => fields.get(field)));
  const [text] = texts;
  if (texts.size > 1) throw raw.wrong(`${name} has different texts in ${given.join(" and ")}`);
  if (text === undefined || typeof text === "string") return text;
  throw raw.wrong(`the ${given[0] ?? ""} of ${name} is not text`);
}

/** Fields of a part that say nothing of its text. */
const inertPartFields = ["type", "text", "value", "cache_control", "annotations"];

function contentOf(raw: RawFields, content: JsonData, name: string): string {
  if (typeof content === "string") return content;
  const parts: readonly JsonData[] = Array.isArray(content) ? (content as JsonData[]) : [content];
  return parts
    .map((part) => {
      if (!isJsonObject(part)) throw raw.wrong(`the content of ${name} is not text`);
      const type = part.get("type");
      const text = part.get("text") ?? part.get("value");
      if (type === undefined) throw raw.wrong(`the content of ${name} is not text`);
      if (type !== "text") {
        throw raw.wrong(
          `the content of ${name} has a part of the type ${shownValue(type)}, not text`,
        );
      }
      const other = [...part.keys()].find((field) => !inertPartFields.includes(field));
      if (other !== undefined) {
        throw raw.wrong(
          `a text in the content of ${name} has ${JSON.stringify(other)}, which is not read`,
        );
      }
      if (typeof text === "string") return text;
      throw raw.wrong(`the content of ${name} is not text`);
    })
    .join("");
}

/** Columns that change what is learnt and are not read. */
const unreadColumns = ["images", "videos", "audios", "chat_template_kwargs"];

/** Whether a field says nothing: as if it were not there. */
export const isNothing = (value: JsonData): boolean =>
  value === null ||
  value === "" ||
  (Array.isArray(value) && value.length === 0) ||
  (isJsonObject(value) && value.size === 0);

/**
 * @param weights of the messages; those of 0 are not learnt
 * @throws E_DATA_NO_ANSWER where no answer with content is there to be learnt, E_DATA_BLANK_ANSWER
 */
export function conversation(
  raw: RawFields,
  messages: readonly ChatMessage[],
  weights: readonly number[],
  tools: JsonData,
): ConversationExample {
  const isLearnt = weights.map((weight) => weight > 0);
  for (const column of unreadColumns) {
    if (!isNothing(raw.data(column))) {
      throw raw.wrong(`it has ${JSON.stringify(column)}, which is not read`);
    }
  }
  const last = messages.at(-1);
  const isEmpty = (message: ChatMessage): boolean =>
    (message.content ?? "") === "" &&
    !(Array.isArray(message["tool_calls"]) && message["tool_calls"].length > 0) &&
    thoughtFields.every((field) => (message[field] ?? "") === "");
  if (
    last === undefined ||
    !messages.some((message, i) => isLearnt[i] === true && !isEmpty(message)) ||
    (last.role === "assistant" && isEmpty(last))
  ) {
    throw raw.noAnswer();
  }
  const blank = messages.findIndex((message, i) => isLearnt[i] === true && isEmpty(message));
  if (blank >= 0) throw raw.blankAnswer(blank + 1);
  const isWeighted = weights.some((weight) => weight !== 0 && weight !== 1);
  return {
    ...{ kind: "conversation", messages, isLearnt, tools },
    ...(isWeighted ? { weights } : {}),
  };
}
