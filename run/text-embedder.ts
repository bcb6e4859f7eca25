import { LockstepError } from "#lib/core/errors/index";
import type { Tokenizer } from "#lib/data/index";
import type { TextEmbedder as TokenEmbedder } from "#lib/evaluation/embed/index";
import type { Pooling } from "#lib/evaluation/embed/pooling";
import { checkOptions, trueOrFalse } from "./check-arguments.js";
import { encodeTexts, openTextModel } from "./text-model.js";
import { type TextModelOptions, textModelRules } from "./text-options.js";

/** Programs are compiled for every doubling of the length up to it. */
const defaultMaxLength = 512;

export interface EmbedderOptions extends TextModelOptions {
  /** How the hidden states of a text become one vector. @default "mean" */
  readonly pooling?: Pooling;
  /** Scales vectors to length 1. @default true */
  readonly normalize?: boolean;
}

const embedderRules = {
  ...textModelRules,
  pooling: {
    expected: `"mean" or "cls"`,
    isValid: (value: unknown) => value === "mean" || value === "cls",
  },
  normalize: trueOrFalse,
};

/** Vectors of texts, by a model's last hidden states. */
export class TextEmbedder {
  readonly tokenizer: Tokenizer;
  /** Longest text, tokens. */
  readonly maxLength: number;
  /** About the model's files, for a person. */
  readonly warnings: readonly string[];
  readonly #embedder: TokenEmbedder;
  readonly #vocabSize: number;
  #isClosed = false;

  private constructor(
    embedder: TokenEmbedder,
    parts: Pick<TextEmbedder, "tokenizer" | "maxLength" | "warnings"> & {
      readonly vocabSize: number;
    },
  ) {
    this.#embedder = embedder;
    this.tokenizer = parts.tokenizer;
    this.maxLength = parts.maxLength;
    this.warnings = parts.warnings;
    this.#vocabSize = parts.vocabSize;
  }

  /**
   * Loads a model: a directory, or a name of the cache or the hub.
   *
   * @param asked maxLength: of a text, tokens; the model's positions or 512, where those are fewer
   * @throws E_ARGUMENT, E_MODEL_NOT_FOUND, E_ENGINE_NOT_INSTALLED, and what reading its files throws
   */
  static async open(nameOrPath: string, asked: EmbedderOptions = {}): Promise<TextEmbedder> {
    const options = checkOptions(asked, embedderRules);
    const { TextEmbedder: Embedder } = await import("#lib/evaluation/embed/index");
    const opened = await openTextModel(nameOrPath, ["feature-extraction", "causal-lm"], options);
    try {
      const { model, tokenizer, warnings, readWeight } = opened;
      const { pooling = "mean", normalize = true, batchSize = 8 } = options;
      const maxLength = options.maxLength ?? Math.min(model.maxPositions, defaultMaxLength);
      const embedder = await Embedder.create({
        ...{ model, readWeight, maxLength, batchSize, pooling, normalize },
        precision: options.bf16 === true ? "bf16" : "fp32",
        paddingTokenId: tokenizer.padTokenId ?? 0,
      });
      const { vocabSize } = model;
      return new TextEmbedder(embedder, { tokenizer, maxLength, warnings, vocabSize });
    } finally {
      await opened.close();
    }
  }

  /**
   * @returns a vector a text
   * @throws E_ARGUMENT, E_CLOSED, E_SEQUENCE_TOO_LONG, E_TEXT_UNUSABLE, E_TOKEN_OUT_OF_VOCABULARY
   */
  async embed(texts: readonly string[]): Promise<Float32Array[]> {
    if (this.#isClosed) throw new LockstepError("E_CLOSED", { what: "text embedder" });
    const limits = { maxLength: this.maxLength, vocabSize: this.#vocabSize };
    const encoded = await encodeTexts(this.tokenizer, texts, limits);
    return this.#embedder.embed(encoded.map(({ ids }) => ids));
  }

  close(): void {
    this.#isClosed = true;
    this.#embedder.close();
  }
}
