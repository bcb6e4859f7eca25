import type { ChatMessage } from "#lib/data/chat-template";
import { isRecord } from "#lib/data/files";
import { type ConversationExample, type FormatOptions, FormatRow } from "./example.js";

/**
 * OpenAI's `messages`: an assistant's message may carry `weight` (0: not learnt) or LLaMA-Factory's
 * `loss_weight`; content is text, or a list of parts of text.
 *
 * @param messages the list; the field `messages` by default
 */
export function messagesRow(
  row: FormatRow,
  { columns = {} }: FormatOptions,
  messages: unknown = row.get(columns.messages ?? "messages"),
): ConversationExample {
  if (!Array.isArray(messages)) throw row.wrong('"messages" is not a list');
  const isLearnt: boolean[] = [];
  const read = messages.map((value: unknown, i): ChatMessage => {
    if (!isRecord(value) || typeof value.role !== "string") {
      throw row.wrong(`message ${i + 1} is not an object with a role`);
    }
    const { weight, loss_weight, ...message } = value;
    isLearnt.push(value.role === "assistant" && learns(row, weight ?? loss_weight ?? 1, i));
    const known = Object.fromEntries(Object.entries(message).filter(([, v]) => v !== null));
    return { ...known, role: value.role, content: contentOf(row, value.content, i) };
  });
  return conversation(row, read, isLearnt, parseTools(row, columns.tools ?? "tools"));
}

function learns(row: FormatRow, weight: unknown, index: number): boolean {
  if (weight === 0 || weight === 1) return weight === 1;
  throw row.wrong(`the weight of message ${index + 1} is not 0 or 1`);
}

function contentOf(row: FormatRow, content: unknown, index: number): string {
  if (typeof content === "string") return content;
  // A call of a tool has no text of its own.
  if (content === null || content === undefined) return "";
  const parts: unknown[] = Array.isArray(content) ? content : [content];
  return parts
    .map((part) => {
      const text = isRecord(part) && part.type === "text" ? (part.text ?? part.value) : undefined;
      if (typeof text === "string") return text;
      throw row.wrong(`the content of message ${index + 1} is not text`);
    })
    .join("");
}

/**
 * ShareGPT: `conversations` of `{from, value}`, roles human, gpt, observation, function_call and
 * system; people and tools speak at odd places, the model at even ones. Tags may have other names.
 */
export function sharegptRow(row: FormatRow, options: FormatOptions): ConversationExample {
  const { columns = {}, tags = {} } = options;
  const roleTag = tags.role_tag ?? "from";
  const contentTag = tags.content_tag ?? "value";
  const list = row.get(columns.messages ?? "conversations");
  if (!Array.isArray(list)) throw row.wrong('"conversations" is not a list');
  const roles = new Map([
    [tags.user_tag ?? "human", "user"],
    [tags.assistant_tag ?? "gpt", "assistant"],
    [tags.observation_tag ?? "observation", "tool"],
    [tags.function_tag ?? "function_call", "function_call"],
    [tags.system_tag ?? "system", "system"],
  ]);
  const messages: ChatMessage[] = [];
  const system = row.optionalString(columns.system ?? "system");
  if (system !== "") messages.push({ role: "system", content: system });
  let isModelsTurn = false;
  for (const [i, turn] of list.entries()) {
    const name: unknown = isRecord(turn) ? turn[roleTag] : undefined;
    const content: unknown = isRecord(turn) ? turn[contentTag] : undefined;
    const role = typeof name === "string" ? roles.get(name) : undefined;
    if (role === undefined) {
      throw row.wrong(
        `turn ${i + 1} has the role ${JSON.stringify(name) ?? "none"}, not one of ${[...roles.keys()].join(", ")}`,
      );
    }
    if (typeof content !== "string") throw row.wrong(`turn ${i + 1} has no text`);
    if (role === "system" && i === 0) {
      if (system === "") messages.push({ role, content });
      continue;
    }
    const isModel = role === "assistant" || role === "function_call";
    if (isModel !== isModelsTurn)
      throw row.wrong(`turn ${i + 1} is not the turn of ${String(name)}`);
    isModelsTurn = !isModelsTurn;
    messages.push(role === "function_call" ? toolCall(row, content, i) : { role, content });
  }
  const isLearnt = messages.map(({ role }) => role === "assistant");
  return conversation(row, messages, isLearnt, parseTools(row, columns.tools ?? "tools"));
}

function toolCall(row: FormatRow, content: string, index: number): ChatMessage {
  const problem = `turn ${index + 1} is not a call {"name", "arguments"} in JSON`;
  let calls: unknown;
  try {
    calls = JSON.parse(content);
  } catch {
    throw row.wrong(problem);
  }
  const list: unknown[] = Array.isArray(calls) ? calls : [calls];
  const toolCalls = list.map((call) => {
    if (!isRecord(call) || typeof call.name !== "string") throw row.wrong(problem);
    return { type: "function", function: { name: call.name, arguments: call.arguments ?? {} } };
  });
  return { role: "assistant", content: "", tool_calls: toolCalls };
}

/**
 * Alpaca: the prompt is `instruction`, a line end and `input`; `history` holds earlier questions with
 * answers, which are learnt too.
 */
export function alpacaRow(row: FormatRow, { columns = {} }: FormatOptions): ConversationExample {
  const messages: ChatMessage[] = [];
  const add = (role: string, content: string): number => messages.push({ role, content });
  const system = row.optionalString(columns.system ?? "system");
  if (system !== "") add("system", system);
  const history = row.get(columns.history ?? "history") ?? [];
  if (!Array.isArray(history)) throw row.wrong('"history" is not a list');
  for (const [i, turn] of (history as unknown[]).entries()) {
    const [question, answer, ...more] = Array.isArray(turn) ? (turn as unknown[]) : [];
    if (typeof question !== "string" || typeof answer !== "string" || more.length > 0) {
      throw row.wrong(`turn ${i + 1} of "history" is not a pair of texts`);
    }
    add("user", question);
    add("assistant", answer);
  }
  const instruction = row.string(columns.prompt ?? "instruction");
  const input = row.optionalString(columns.query ?? "input");
  add("user", [instruction, input].filter((part) => part !== "").join("\n"));
  add("assistant", row.optionalString(columns.response ?? "output"));
  const isLearnt = messages.map(({ role }) => role === "assistant");
  return conversation(row, messages, isLearnt, parseTools(row, columns.tools ?? "tools"));
}

/** @throws E_DATA_NO_ANSWER where no answer with content is there to be learnt */
function conversation(
  row: FormatRow,
  messages: readonly ChatMessage[],
  isLearnt: readonly boolean[],
  tools: unknown,
): ConversationExample {
  const last = messages.at(-1);
  const isEmpty = (message: ChatMessage): boolean =>
    message.content === "" && message.tool_calls === undefined;
  if (
    last === undefined ||
    !messages.some((message, i) => isLearnt[i] === true && !isEmpty(message))
  )
    throw row.noAnswer();
  if (last.role === "assistant" && isEmpty(last)) throw row.noAnswer();
  return { kind: "conversation", messages, isLearnt, tools };
}

/** A list of JSON schemas, or its text. */
function parseTools(row: FormatRow, field: string): unknown {
  const tools = row.get(field);
  if (typeof tools !== "string") return tools ?? null;
  if (tools.trim() === "") return null;
  try {
    return JSON.parse(tools) as unknown;
  } catch {
    throw row.wrong(`${JSON.stringify(field)} is not JSON`);
  }
}
