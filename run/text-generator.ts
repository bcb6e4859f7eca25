import { existsSync } from "node:fs";
import { join } from "node:path";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { LockstepError } from "#lib/core/errors/index";
import { type ChatMessage, checkVocabulary, type Tokenizer } from "#lib/data/index";
import type { Continuation } from "#lib/evaluation/generate/continuation";
import type { Generator } from "#lib/evaluation/generate/index";
import {
  type GenerationOptions,
  generationDefaults,
  generationRules,
  readGenerationConfig,
} from "#lib/evaluation/generate/options";
import { aFunction, checkArgument, checkOptions, wrongArgument } from "./check-arguments.js";
import { openTextModel } from "./text-model.js";
import { type TextModelOptions, textModelRules } from "./text-options.js";

/** Memory of cached keys and values grows with it. */
const defaultMaxLength = 1024;
const maxGenerationConfigBytes = 1 << 20;

/** A text to continue, or messages to answer. */
export type Prompt = string | readonly ChatMessage[];

export interface GenerateOptions extends Partial<GenerationOptions> {
  /** Gets a prompt's text piece by piece, as soon as nothing can change it. */
  readonly onText?: (index: number, piece: string) => void;
}

/** Continues texts and answers messages with a language model. */
export class TextGenerator {
  readonly tokenizer: Tokenizer;
  /** Longest prompt plus continuation, tokens. */
  readonly maxLength: number;
  /** About the model's files, for a person. */
  readonly warnings: readonly string[];
  readonly #generator: Generator;
  readonly #defaults: GenerationOptions;
  readonly #vocabSize: number;
  #isClosed = false;

  private constructor(
    generator: Generator,
    parts: Pick<TextGenerator, "tokenizer" | "maxLength" | "warnings"> & {
      readonly defaults: GenerationOptions;
      readonly vocabSize: number;
    },
  ) {
    this.#generator = generator;
    this.tokenizer = parts.tokenizer;
    this.maxLength = parts.maxLength;
    this.warnings = parts.warnings;
    this.#defaults = parts.defaults;
    this.#vocabSize = parts.vocabSize;
  }

  /**
   * Loads a model, or an adapter in its base model: a directory, or a name of the cache or the hub.
   *
   * @param asked maxLength: prompt plus continuation, tokens; the model's positions or 1024, where those are fewer
   * @throws E_ARGUMENT, E_MODEL_NOT_FOUND, E_MODEL_TASK, E_ENGINE_NOT_INSTALLED, and what reading its files throws
   */
  static async open(nameOrPath: string, asked: TextModelOptions = {}): Promise<TextGenerator> {
    const options = checkOptions(asked, textModelRules);
    const { Generator } = await import("#lib/evaluation/generate/index");
    const opened = await openTextModel(nameOrPath, ["causal-lm"], options);
    try {
      const { model, tokenizer, readWeight, warnings, modelDirectory } = opened;
      const maxLength = options.maxLength ?? Math.min(model.maxPositions, defaultMaxLength);
      const generator = await Generator.create({
        ...{ model, readWeight, maxLength, batchSize: options.batchSize ?? 1 },
        precision: options.bf16 === true ? "bf16" : "fp32",
      });
      const defaults = await generationOptionsOf(modelDirectory, tokenizer);
      const { vocabSize } = model;
      return new TextGenerator(generator, { tokenizer, maxLength, warnings, defaults, vocabSize });
    } finally {
      await opened.close();
    }
  }

  /**
   * @param asked what is not given is that of the model's generation_config.json, else the default
   * @throws E_ARGUMENT, E_CLOSED, E_GENERATION_TOO_LONG, E_CHAT_TEMPLATE_MISSING, E_TOKEN_OUT_OF_VOCABULARY
   */
  async generate(
    prompts: readonly Prompt[],
    asked: GenerateOptions = {},
  ): Promise<(Continuation & { readonly text: string })[]> {
    if (this.#isClosed) throw new LockstepError("E_CLOSED", { what: "text generator" });
    const { onText, ...options } = checkOptions(asked, { ...generationRules, onText: aFunction });
    checkArgument("prompts", prompts, {
      expected: "a list of prompts, each a text or a list of messages",
      isValid: isListOfPrompts,
    });
    if (prompts.length === 0) return [];
    const { tokenizer } = this;
    const encoded = await Promise.all(prompts.map((prompt) => encodePrompt(tokenizer, prompt)));
    for (const [index, ids] of encoded.entries()) {
      const document = `prompt ${index + 1}`;
      if (ids.length === 0) {
        throw wrongArgument(document, "a text with tokens", prompts[index]);
      }
      checkVocabulary(ids, { tokenizer, vocabSize: this.#vocabSize, document });
    }
    const longest = Math.max(...encoded.map(({ length }) => length));
    const given = { ...this.#defaults, ...options };
    const fitting = withinPositions(given, longest, this.maxLength, options.maxNewTokens);
    const continuations = await this.#generator.generate(encoded, fitting, {
      decode: (tokens) => tokenizer.decode(tokens),
      ...(onText === undefined ? {} : { onText }),
    });
    return continuations.map((each) => ({ ...each, text: each.text ?? "" }));
  }

  close(): void {
    this.#isClosed = true;
    this.#generator.close();
  }
}

const isListOfPrompts = (prompts: unknown): boolean =>
  Array.isArray(prompts) &&
  prompts.every((prompt) => typeof prompt === "string" || Array.isArray(prompt));

/** The tokens of a prompt; messages are followed by the beginning of an answer. @throws E_CHAT_TEMPLATE_MISSING */
export async function encodePrompt(tokenizer: Tokenizer, prompt: Prompt): Promise<Int32Array> {
  return typeof prompt === "string"
    ? tokenizer.encode(prompt, { addSpecialTokens: true })
    : tokenizer.encode(tokenizer.applyChatTemplate(prompt, { addGenerationPrompt: true }));
}

/** How a model's own files say that it is to generate. @throws E_JSON_FILE, E_GENERATION_CONFIG */
export async function generationOptionsOf(
  modelDirectory: string,
  tokenizer: Tokenizer,
): Promise<GenerationOptions> {
  const defaults = { ...generationDefaults, endTokenIds: tokenizer.endTokenIds };
  const file = join(modelDirectory, "generation_config.json");
  if (!existsSync(file)) return defaults;
  const json = await readJsonFile(file, "generation configuration", maxGenerationConfigBytes);
  if (!isRecord(json))
    throw new LockstepError("E_JSON_FILE", { file, problem: "it is not an object" });
  return { ...defaults, ...readGenerationConfig(file, json) };
}

/**
 * A length that nobody asked for gives way to the room that there is; one that was asked for must fit.
 *
 * @throws E_GENERATION_TOO_LONG
 */
export function withinPositions(
  options: GenerationOptions,
  promptTokens: number,
  maxLength: number,
  asked: number | undefined,
): GenerationOptions {
  const room = maxLength - promptTokens;
  const maxNewTokens = asked ?? Math.min(options.maxNewTokens, Math.max(room, 1));
  if (maxNewTokens <= room) return { ...options, maxNewTokens };
  throw new LockstepError("E_GENERATION_TOO_LONG", { promptTokens, maxNewTokens, maxLength });
}
