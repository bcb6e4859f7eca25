import { LockstepError } from "#lib/core/errors/index";
import { type ChatTemplateSource, readTemplateSources } from "./chat-template-files.js";
import {
  exposeGenerationTags,
  generationMarks,
  hasGenerationTags,
  type MarkedText,
  marksOutside,
  takeMarks,
} from "./generation-marks.js";
import { callsDate, compileTemplate, jsonText, type Value } from "./jinja/index.js";
import { templateValue } from "./json-data.js";
import type { SpecialTokens } from "./special-tokens.js";

/** What a template sees of a message; some look at more fields (`tool_calls`, `name`). */
export interface ChatMessage {
  readonly role: string;
  /** Absent where a message only calls tools. */
  readonly content?: string;
  readonly [field: string]: unknown;
}

interface RenderOptions {
  readonly addGenerationPrompt: boolean;
  /** JSON schemas of functions. @default null */
  readonly tools?: unknown;
}

export interface ChatTemplate {
  readonly file: string;
  /** Whether the template marks the text of answers with `{% generation %}`. */
  readonly marksAnswers: boolean;
  /** Whether it writes a date: it calls `strftime_now`. */
  readonly writesDate: boolean;
  /** The template of examples with these tools: `tool_use` where it has one. @throws E_CHAT_TEMPLATE_FAILED */
  forTools(tools: unknown): ChatTemplate;
  /** Whether the template's source has this word in quotes. */
  mentions(word: string): boolean;
  /** Whether the template's source has this text anywhere. */
  holds(text: string): boolean;
  /** @throws E_CHAT_TEMPLATE_FAILED */
  render(messages: readonly ChatMessage[], options: RenderOptions): string;
  /** The text, and the spans that the template marks as answers. @throws E_CHAT_TEMPLATE_FAILED */
  renderMarked(messages: readonly ChatMessage[], options: RenderOptions): MarkedText;
}

/** The day that a template writes where it asks for today: a run has one. @default today */
export interface TemplateOptions {
  /** YYYY-MM-DD; the time is midnight. */
  readonly date?: string;
}

/**
 * The chat template of a model directory, as transformers finds it: `chat_template.jinja` with the
 * others of `additional_chat_templates/`, or `chat_template` of `tokenizer_config.json`.
 *
 * @throws E_CHAT_TEMPLATE_FAILED where one cannot be parsed
 */
export async function readChatTemplate(
  directory: string,
  specialTokens: SpecialTokens,
  options: TemplateOptions = {},
): Promise<ChatTemplate | undefined> {
  const sources = await readTemplateSources(directory);
  const [first] = sources.values();
  if (first === undefined) return undefined;
  const compiled = new Map<string, ChatTemplate>();
  // One that no example needs (rag) may use what cannot be parsed here.
  const named = (name: string): ChatTemplate | undefined => {
    const source = sources.get(name);
    const template = compiled.get(name) ?? (source && chatTemplate(source, specialTokens, options));
    if (template !== undefined) compiled.set(name, template);
    return template;
  };
  const byDefault = named("default");
  const forTools = (tools: unknown): ChatTemplate => {
    const hasTools = tools !== null && tools !== undefined;
    const chosen = (hasTools ? named("tool_use") : undefined) ?? byDefault;
    if (chosen !== undefined) return chosen;
    throw new LockstepError("E_CHAT_TEMPLATE_FAILED", {
      file: first.file,
      problem: `it has the templates ${[...sources.keys()].sort().join(", ")}, and no default for rows without tools`,
    });
  };
  return {
    file: first.file,
    marksAnswers: byDefault?.marksAnswers ?? false,
    writesDate: [...sources.values()].some(({ text }) => callsDate(text)),
    forTools,
    mentions: (word) => [...sources.values()].some(({ text }) => mentions(text, word)),
    holds: (part) => [...sources.values()].some(({ text }) => text.includes(part)),
    render: (messages, given) => forTools(given.tools).render(messages, given),
    renderMarked: (messages, given) => forTools(given.tools).renderMarked(messages, given),
  };
}

function chatTemplate(
  { file, text }: ChatTemplateSource,
  specialTokens: SpecialTokens,
  { date }: TemplateOptions,
): ChatTemplate {
  const failed = (cause: unknown): LockstepError =>
    new LockstepError(
      "E_CHAT_TEMPLATE_FAILED",
      { file, problem: cause instanceof Error ? cause.message : String(cause) },
      { cause },
    );
  const attempt = <T>(action: () => T): T => {
    try {
      return action();
    } catch (cause) {
      throw failed(cause);
    }
  };
  const template = attempt(() => compileTemplate(exposeGenerationTags(text)));
  // A token that the tokenizer lacks is undefined in a template, not empty.
  const tokens = Object.fromEntries(
    Object.entries({
      bos_token: specialTokens.bosToken,
      eos_token: specialTokens.eosToken,
      pad_token: specialTokens.padToken,
      unk_token: specialTokens.unkToken,
    }).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  const render = (
    messages: readonly ChatMessage[],
    { addGenerationPrompt, tools }: RenderOptions,
    marks: Readonly<Record<string, string>>,
  ): string =>
    attempt(() =>
      template.render(
        {
          ...tokens,
          ...marks,
          messages: messages.map(messageValue),
          tools: templateValue(tools),
          documents: null,
          add_generation_prompt: addGenerationPrompt,
        },
        date === undefined ? new Date() : startOfDay(date),
      ),
    );
  const own: ChatTemplate = {
    file,
    marksAnswers: hasGenerationTags(text),
    writesDate: callsDate(text),
    forTools: () => own,
    mentions: (word) => mentions(text, word),
    holds: (part) => text.includes(part),
    render: (messages, options) => render(messages, options, generationMarks("", "")),
    renderMarked(messages, options) {
      const given = [messages.map(messageValue), templateValue(options.tools)];
      const { start, end } = attempt(() => marksOutside(jsonText(given)));
      return takeMarks(render(messages, options, generationMarks(start, end)), { start, end });
    },
  };
  return own;
}

const mentions = (source: string, word: string): boolean =>
  source.includes(`'${word}'`) || source.includes(`"${word}"`);

/** A message as transformers shows it to a template: without empty fields, its thoughts under both names. */
function messageValue(message: ChatMessage): Value {
  const entries = Object.entries(message)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]): [Value, Value] => [name, templateValue(value)]);
  const fields = new Map(entries);
  const thoughts = ["reasoning_content", "thinking", "reasoning"]
    .map((name) => fields.get(name))
    .find((value) => value !== undefined);
  if (thoughts === undefined) return fields;
  return new Map<Value, Value>([
    ["thinking", thoughts],
    ...fields,
    ["reasoning_content", thoughts],
  ]);
}

/** Midnight of a day, YYYY-MM-DD, in this machine's zone. */
function startOfDay(date: string): Date {
  const [year = 1970, month = 1, day = 1] = date.split("-").map(Number);
  return new Date(year, month - 1, day);
}

/** Today as YYYY-MM-DD, in this machine's zone. */
export function today(now = new Date()): string {
  const pad = (value: number, width: number): string => String(value).padStart(width, "0");
  return `${pad(now.getFullYear(), 4)}-${pad(now.getMonth() + 1, 2)}-${pad(now.getDate(), 2)}`;
}
