import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { LockstepError } from "#lib/core/errors/index";
import { isRecord, maxModelTextBytes, readOptionalJson, readTextFile } from "./files.js";
import {
  exposeGenerationTags,
  generationMarks,
  hasGenerationTags,
  type MarkedText,
  marksOutside,
  takeMarks,
} from "./generation-marks.js";
import type { SpecialTokens } from "./special-tokens.js";

/** What a template sees of a message; some look at more fields (`tool_calls`, `name`). */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly [field: string]: unknown;
}

export interface RenderOptions {
  readonly addGenerationPrompt: boolean;
  /** JSON schemas of functions. @default null */
  readonly tools?: unknown;
}

export interface ChatTemplate {
  readonly file: string;
  /** Whether the template marks the text of answers with `{% generation %}`. */
  readonly marksAnswers: boolean;
  /** @throws E_CHAT_TEMPLATE_FAILED */
  render(messages: readonly ChatMessage[], options: RenderOptions): string;
  /** The text, and the spans that the template marks as answers. @throws E_CHAT_TEMPLATE_FAILED */
  renderMarked(messages: readonly ChatMessage[], options: RenderOptions): MarkedText;
}

/**
 * The chat template of a model directory: `chat_template.jinja`, or `chat_template` of
 * `tokenizer_config.json` (a string, or a list of named ones of which "default" counts).
 */
export async function readChatTemplate(
  directory: string,
  specialTokens: SpecialTokens,
): Promise<ChatTemplate | undefined> {
  const source = await readTemplateSource(directory);
  if (source === undefined) return undefined;
  const { file, text } = source;
  const failed = (cause: unknown): LockstepError =>
    new LockstepError(
      "E_CHAT_TEMPLATE_FAILED",
      { file, problem: cause instanceof Error ? cause.message : String(cause) },
      { cause },
    );
  let template: Template;
  try {
    template = new Template(exposeGenerationTags(text));
  } catch (cause) {
    throw failed(cause);
  }
  const tokens = {
    bos_token: specialTokens.bosToken ?? "",
    eos_token: specialTokens.eosToken ?? "",
    pad_token: specialTokens.padToken ?? "",
    unk_token: specialTokens.unkToken ?? "",
  };
  const render = (
    messages: readonly ChatMessage[],
    { addGenerationPrompt, tools = null }: RenderOptions,
    marks: Record<string, string>,
  ): string => {
    try {
      return template.render({
        ...tokens,
        ...marks,
        messages: messages.map((message) => ({ ...message })),
        add_generation_prompt: addGenerationPrompt,
        tools,
        documents: null,
      });
    } catch (cause) {
      throw failed(cause);
    }
  };
  return {
    file,
    marksAnswers: hasGenerationTags(text),
    render: (messages, options) => render(messages, options, generationMarks("", "")),
    renderMarked(messages, options) {
      const { start, end } = marksOutside(JSON.stringify([messages, options.tools]));
      return takeMarks(render(messages, options, generationMarks(start, end)), { start, end });
    },
  };
}

async function readTemplateSource(
  directory: string,
): Promise<{ file: string; text: string } | undefined> {
  const file = join(directory, "chat_template.jinja");
  try {
    const text = await readTextFile(file, { what: "chat template", limitBytes: maxModelTextBytes });
    return { file, text };
  } catch (error) {
    if (!(error instanceof LockstepError) || error.code !== "E_FILE_NOT_FOUND") throw error;
  }
  const configFile = join(directory, "tokenizer_config.json");
  const value = (await readOptionalJson(configFile))?.chat_template;
  if (typeof value === "string") return { file: configFile, text: value };
  if (Array.isArray(value)) {
    for (const named of value) {
      if (isRecord(named) && named.name === "default" && typeof named.template === "string") {
        return { file: configFile, text: named.template };
      }
    }
  }
  return undefined;
}
