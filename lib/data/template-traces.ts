import type { ChatMessage, ChatTemplate } from "./chat-template.js";
import type { ConversationExample } from "./formats/index.js";
import { jsonText } from "./jinja/index.js";
import { isJsonObject, type JsonData, templateValue } from "./json-data.js";

type Conversation = Pick<ConversationExample, "messages" | "tools">;

/** A field that a template has to write, with a way to tell whether it did. */
interface Trace {
  /** For a person: "the arguments of call 1 of message 2". */
  readonly what: string;
  readonly kind: "content" | "thoughts" | "call" | "arguments" | "tool";
  /** Of the message, counted from 0; -1 for a tool. */
  readonly message: number;
  /** Text that occurs nowhere in the conversation. */
  readonly mark: string;
  /** The conversation with the mark in this field. */
  readonly apply: (conversation: Conversation) => Conversation;
  /** What the field says itself, where that is a text. */
  readonly text: string | undefined;
}

/**
 * Which fields of a conversation leave no trace in what a template writes. Marks are put into all fields
 * at once: into texts before the tags that close them, since templates look at how texts begin and end; a
 * mark is digits alone, which no filter changes.
 */
export class TemplateTraces {
  readonly #conversation: Conversation;
  readonly #template: ChatTemplate;
  readonly #traces: readonly Trace[];
  readonly #marked: Conversation;
  #missing: readonly Trace[];

  constructor(conversation: Conversation, template: ChatTemplate) {
    this.#conversation = conversation;
    this.#template = template;
    this.#traces = tracesOf(conversation);
    this.#marked = this.#traces.reduce((whole, { apply }) => apply(whole), conversation);
    this.#missing = this.#traces;
  }

  /**
   * Looks for the fields that are still missing in the text of the first `end` messages.
   *
   * @returns whether the thoughts of the last of these messages are in it
   */
  look(end: number): boolean {
    if (this.#missing.length === 0) return true;
    const isThere = this.#finder(end);
    this.#missing = this.#missing.filter((trace) => !isThere(trace));
    return !this.#missing.some(({ kind, message }) => kind === "thoughts" && message === end - 1);
  }

  /** Messages, counted from 0, whose thoughts were not found. */
  get withoutThoughts(): readonly number[] {
    return this.#missing.flatMap(({ kind, message }) => (kind === "thoughts" ? [message] : []));
  }

  /** What was not found, for a person. Thoughts of answers that are not learnt may be left out. */
  firstMissing(isLearnt: readonly boolean[]): string | undefined {
    return this.#missing.find(
      ({ kind, message }) => kind !== "thoughts" || isLearnt[message] === true,
    )?.what;
  }

  #finder(end: number): (trace: Trace) => boolean {
    const text = this.#render(this.#marked, end);
    if (text === undefined) {
      // The template refuses the marks: what the fields themselves say has to do.
      const own = this.#render(this.#conversation, end) ?? "";
      return (trace) => trace.text === undefined || own.includes(trace.text);
    }
    return ({ mark, message, apply }) => {
      if (message >= end) return false;
      if (text.includes(mark)) return true;
      // It may be written in parts or in another form: then the text differs without it.
      const alone = this.#render(apply(this.#conversation), end);
      return alone === undefined || alone !== this.#render(this.#conversation, end);
    };
  }

  #render({ messages, tools }: Conversation, end: number): string | undefined {
    try {
      return this.#template.render(messages.slice(0, end), { addGenerationPrompt: false, tools });
    } catch {
      return undefined;
    }
  }
}

const nameOf = (call: ReadonlyMap<string, JsonData>): string => {
  const name = call.get("name");
  return typeof name === "string" ? name : "";
};

/** Content that is nothing but thoughts, which a template may write as such. */
const isThought = /^\s*<think>(?:(?!<\/think>)[^])*<\/think>\s*$/;

/** What a call is made with: OpenAI's name, and those of Llama and of Anthropic. */
const argumentFields = ["arguments", "parameters", "input"];

/** Thoughts at the beginning of an answer's content, which a template may cut off. */
const thoughtsBefore = /^\s*<think>((?:(?!<\/?think>)[^])*\S(?:(?!<\/?think>)[^])*)<\/think>\s*\S/;

function tracesOf(conversation: Conversation): Trace[] {
  const traces: Trace[] = [];
  const seed = digitsOutside(jsonText(templateValue(conversation)));
  const add = (trace: Omit<Trace, "mark" | "apply">, change: Change): void => {
    const mark = `${seed}${String(traces.length).padStart(5, "0")}`;
    traces.push({ ...trace, mark, apply: (whole) => change(whole, mark) });
  };
  for (const [i, message] of conversation.messages.entries()) {
    const name = `message ${i + 1}`;
    const { content = "", reasoning_content, thinking, reasoning } = message;
    const thoughts = reasoning_content ?? thinking ?? reasoning;
    if (content.trim() !== "") {
      add(
        {
          what: `the content of ${name} (${message.role})`,
          kind: message.role === "assistant" && isThought.test(content) ? "thoughts" : "content",
          message: i,
          text: content.trim(),
        },
        inMessage(i, (whole, mark) => ({
          ...whole,
          content: withMark(whole.content ?? "", mark),
        })),
      );
    }
    const own = message.role === "assistant" ? thoughtsBefore.exec(content)?.[1] : undefined;
    if (own !== undefined) {
      add(
        { what: `what ${name} thinks`, kind: "thoughts", message: i, text: own.trim() },
        inMessage(i, (whole, mark) => ({
          ...whole,
          content: (whole.content ?? "").replace("</think>", () => `${mark}</think>`),
        })),
      );
    }
    if (typeof thoughts === "string" && thoughts.trim() !== "") {
      add(
        { what: `what ${name} thinks`, kind: "thoughts", message: i, text: thoughts.trim() },
        inMessage(i, (whole, mark) => markThoughts(whole, thoughts, mark)),
      );
    }
    const calls = message["tool_calls"];
    for (const [j, call] of (Array.isArray(calls) ? (calls as JsonData[]) : []).entries()) {
      if (!isJsonObject(call)) continue;
      const inner = call.get("function") ?? call;
      if (!isJsonObject(inner)) continue;
      const what = `call ${j + 1} of ${name}`;
      add(
        { what, kind: "call", message: i, text: nameOf(inner) },
        inCall(i, j, (whole, mark) => whole.set("name", `${nameOf(whole)}${mark}`)),
      );
      for (const field of argumentFields) {
        const given = inner.get(field);
        if (!isJsonObject(given) || given.size === 0) continue;
        add(
          { what: `the ${field} of ${what}`, kind: "arguments", message: i, text: undefined },
          inCall(i, j, (whole, mark) => {
            const before = whole.get(field);
            return isJsonObject(before)
              ? whole.set(field, new Map<string, JsonData>([...before, [mark, mark]]))
              : whole;
          }),
        );
      }
    }
  }
  const { tools } = conversation;
  for (const [i, tool] of (Array.isArray(tools) ? (tools as JsonData[]) : []).entries()) {
    if (!isJsonObject(tool)) continue;
    const inner = tool.get("function");
    const named = isJsonObject(inner) ? inner : tool;
    const name = named.get("name");
    const text = typeof name === "string" ? name : undefined;
    add({ what: `tool ${i + 1}`, kind: "tool", message: -1, text }, (whole, mark) => {
      const list = [...(whole.tools as readonly JsonData[])];
      const marked = new Map(named).set("name", `${text ?? ""}${mark}`);
      list[i] = isJsonObject(inner) ? new Map([...tool, ["function", marked]]) : marked;
      return { ...whole, tools: list };
    });
  }
  return traces;
}

type Change = (conversation: Conversation, mark: string) => Conversation;

const inMessage =
  (index: number, change: (message: ChatMessage, mark: string) => ChatMessage): Change =>
  (conversation, mark) => ({
    ...conversation,
    messages: conversation.messages.map((each, i) => (i === index ? change(each, mark) : each)),
  });

const inCall = (
  message: number,
  index: number,
  change: (call: Map<string, JsonData>, mark: string) => Map<string, JsonData>,
): Change =>
  inMessage(message, (whole, mark) => {
    const calls = (whole["tool_calls"] as readonly ReadonlyMap<string, JsonData>[]).map(
      (call, i) => {
        if (i !== index) return call;
        const inner = call.get("function");
        return isJsonObject(inner)
          ? new Map<string, JsonData>([...call, ["function", change(new Map(inner), mark)]])
          : change(new Map(call), mark);
      },
    );
    return { ...whole, tool_calls: calls };
  });

function markThoughts(message: ChatMessage, thoughts: string, mark: string): ChatMessage {
  const names = ["reasoning_content", "thinking", "reasoning"].filter((name) => name in message);
  const text = withMark(thoughts, mark);
  return { ...message, ...Object.fromEntries(names.map((name) => [name, text])) };
}

/** Closing tags at the end of a text that are looked behind. */
const maxClosingTags = 4;

/** A text with a mark at its end, before blanks and tags that close. */
function withMark(text: string, mark: string): string {
  let end = text.trimEnd().length;
  for (let i = 0; i < maxClosingTags && text[end - 1] === ">"; i++) {
    const open = text.lastIndexOf("</", end - 1);
    if (open <= 0 || /[<>]/.test(text.slice(open + 2, end - 1))) break;
    end = text.slice(0, open).trimEnd().length;
  }
  if (end === 0) end = text.trimEnd().length;
  return text.slice(0, end) + mark + text.slice(end);
}

/** Digits that do not occur in a text. */
function digitsOutside(text: string): string {
  for (let digits = 918_273_645; ; digits += 7) {
    if (!text.includes(String(digits))) return String(digits);
  }
}
