import type { ChatMessage } from "#lib/data/chat-template";
import { shownValue } from "#lib/core/shown-value";
import { isJsonObject, type JsonData } from "#lib/data/json-data";
import { type ConversationExample, type FormatOptions, RawFields } from "./example.js";
import { conversation, isNothing, messagesExample, weightOfMessage } from "./messages.js";
import { readCallText, readTools } from "./tool-calls.js";

/**
 * ShareGPT: `conversations` of `{from, value}`, roles human, gpt, observation, function_call and
 * system; people and tools speak at odd places, the model at even ones. Tags may have other names.
 */
export function sharegptExample(raw: RawFields, options: FormatOptions): ConversationExample {
  const { columns = {}, tags = {} } = options;
  const roleTag = tags.role_tag ?? "from";
  const contentTag = tags.content_tag ?? "value";
  const field = columns.messages ?? "conversations";
  const list = raw.data(field);
  if (!Array.isArray(list)) throw raw.wrong(`${JSON.stringify(field)} is not a list`);
  const turns = list as readonly JsonData[];
  if (options.tags === undefined && turns.length > 0 && turns.every(isMessage)) {
    return messagesExample(raw, options, raw.get(field));
  }
  const roles = new Map([
    [tags.user_tag ?? "human", "user"],
    [tags.assistant_tag ?? "gpt", "assistant"],
    [tags.observation_tag ?? "observation", "tool"],
    [tags.function_tag ?? "function_call", "function_call"],
    [tags.system_tag ?? "system", "system"],
  ]);
  const messages: ChatMessage[] = [];
  const system = raw.optionalString(columns.system ?? "system");
  if (system !== "") messages.push({ role: "system", content: system });
  let isModelsTurn = false;
  const weights = messages.map(() => 0);
  for (const [i, turn] of turns.entries()) {
    if (!isJsonObject(turn)) throw raw.wrong(`turn ${i + 1} is not an object`);
    const [name, content] = [turn.get(roleTag), turn.get(contentTag)];
    const role = typeof name === "string" ? roles.get(name) : undefined;
    if (role === undefined) {
      throw raw.wrong(
        `turn ${i + 1} has the role ${name === undefined ? "none" : shownValue(name)}, not one of ${[...roles.keys()].join(", ")}`,
      );
    }
    if (typeof content !== "string") throw raw.wrong(`turn ${i + 1} has no text`);
    const unread = unreadParts.find((part) => !isNothing(turn.get(part) ?? null));
    if (unread !== undefined) {
      throw raw.wrong(`turn ${i + 1} has ${JSON.stringify(unread)}, which is not read`);
    }
    if (role === "system" && i === 0) {
      refuseOtherSystem(raw, system, content);
      if (system === "") {
        messages.push({ role, content });
        weights.push(0);
      }
      continue;
    }
    const isModel = role === "assistant" || role === "function_call";
    if (isModel !== isModelsTurn) {
      throw raw.wrong(`turn ${i + 1} is not the turn of ${JSON.stringify(name)}`);
    }
    isModelsTurn = !isModelsTurn;
    messages.push(
      role === "function_call"
        ? {
            role: "assistant",
            content: "",
            tool_calls: readCallText(raw, content, `turn ${i + 1}`),
          }
        : { role, content },
    );
    weights.push(weightOfMessage(raw, turn, `turn ${i + 1}`, isModel));
  }
  return conversation(raw, messages, weights, readTools(raw, columns.tools ?? "tools"));
}

/** Parts of a message that change what is learnt and that a turn of text does not have. */
const unreadParts = ["reasoning_content", "thinking", "reasoning", "tool_calls", "images"];

/** @throws E_DATA_ROW_FORMAT where an example has two system messages that say different things */
export function refuseOtherSystem(raw: RawFields, column: string, first: unknown): void {
  if (column === "" || first === column) return;
  throw raw.wrong("its column for the system message says something else than its first message");
}

/** Whether a turn has the form of `messages`, which many data sets keep in `conversations`. */
const isMessage = (turn: JsonData): boolean =>
  isJsonObject(turn) && turn.has("role") && !turn.has("from") && !turn.has("value");

/**
 * Alpaca: the prompt is `instruction`, a line end and `input`; `history` holds earlier questions with
 * answers, which are learnt too.
 */
export function alpacaExample(
  raw: RawFields,
  { columns = {} }: FormatOptions,
): ConversationExample {
  const messages: ChatMessage[] = [];
  const add = (role: string, content: string): number => messages.push({ role, content });
  const system = raw.optionalString(columns.system ?? "system");
  if (system !== "") add("system", system);
  const history = raw.get(columns.history ?? "history") ?? [];
  if (!Array.isArray(history)) throw raw.wrong('"history" is not a list');
  for (const [i, turn] of (history as unknown[]).entries()) {
    const [question, answer, ...more] = Array.isArray(turn) ? (turn as unknown[]) : [];
    if (typeof question !== "string" || typeof answer !== "string" || more.length > 0) {
      throw raw.wrong(`turn ${i + 1} of "history" is not a pair of texts`);
    }
    add("user", question);
    add("assistant", answer);
  }
  const instruction = raw.string(columns.prompt ?? "instruction");
  const input = raw.optionalString(columns.query ?? "input");
  add("user", [instruction, input].filter((part) => part !== "").join("\n"));
  add("assistant", raw.optionalString(columns.response ?? "output"));
  const weights = messages.map(({ role }) => (role === "assistant" ? 1 : 0));
  return conversation(raw, messages, weights, readTools(raw, columns.tools ?? "tools"));
}
