import { LockstepError } from "#lib/core/errors/index";
import type { Tokenizer } from "#lib/data/index";
import type { ClassScore } from "#lib/evaluation/classify/class-score";
import type { TextClassifier as TokenClassifier } from "#lib/evaluation/classify/index";
import { classScores } from "#lib/evaluation/classify/scores";
import type { SequenceClassifier } from "#lib/models/index";
import { factsOf } from "#lib/models/facts";
import { knownLabels } from "#lib/models/classifier-checkpoint";
import { checkOptions } from "./check-arguments.js";
import { encodeTexts, openTextModel } from "./text-model.js";
import { type TextModelOptions, type TextOrPair, textModelRules } from "./text-options.js";

/** Programs are compiled for every doubling of the length up to it. */
const defaultMaxLength = 512;

/** Classes of texts, and of pairs of texts, by a sequence classifier; or numbers, by a regression. */
export class TextClassifier {
  readonly tokenizer: Tokenizer;
  /** Names of the classes, by number. */
  readonly labels: readonly string[];
  /** Longest text, tokens. */
  readonly maxLength: number;
  /** About the model's files, for a person. */
  readonly warnings: readonly string[];
  readonly #classifier: TokenClassifier;
  readonly #model: SequenceClassifier;
  #isClosed = false;

  private constructor(
    classifier: TokenClassifier,
    model: SequenceClassifier,
    parts: Pick<TextClassifier, "tokenizer" | "labels" | "maxLength" | "warnings">,
  ) {
    this.#classifier = classifier;
    this.#model = model;
    this.tokenizer = parts.tokenizer;
    this.labels = parts.labels;
    this.maxLength = parts.maxLength;
    this.warnings = parts.warnings;
  }

  /**
   * Loads a classifier, or an adapter in its base model: a directory, or a name of the cache or the hub.
   *
   * @param asked maxLength: of a text, tokens; the model's positions or 512, where those are fewer
   * @throws E_ARGUMENT, E_MODEL_NOT_FOUND, E_MODEL_TASK, E_ENGINE_NOT_INSTALLED, and what reading its files throws
   */
  static async open(nameOrPath: string, asked: TextModelOptions = {}): Promise<TextClassifier> {
    const options = checkOptions(asked, textModelRules);
    const { TextClassifier: Classifier } = await import("#lib/evaluation/classify/index");
    const opened = await openTextModel(nameOrPath, ["sequence-classification"], options);
    try {
      const { model, tokenizer, config, warnings, readWeight } = opened;
      const maxLength = options.maxLength ?? Math.min(model.maxPositions, defaultMaxLength);
      // Without a padding token a decoder finds a row's last token only where the row is alone.
      const batchSize = model.padTokenId === null ? 1 : (options.batchSize ?? 8);
      const classifier = await Classifier.create({
        ...{ model, readWeight, maxLength, batchSize },
        precision: options.bf16 === true ? "bf16" : "fp32",
        hasTokenTypes: factsOf(config)?.usesTokenTypes === true,
      });
      const labels = knownLabels(config);
      return new TextClassifier(classifier, model, { tokenizer, labels, maxLength, warnings });
    } finally {
      await opened.close();
    }
  }

  /**
   * @returns the classes of each text with their probabilities, the largest first; of a regression its
   *   outputs in their order, with their numbers
   * @throws E_ARGUMENT, E_CLOSED, E_SEQUENCE_TOO_LONG, E_TEXT_UNUSABLE, E_TOKEN_OUT_OF_VOCABULARY
   */
  async classify(texts: readonly TextOrPair[]): Promise<ClassScore[][]> {
    if (this.#isClosed) throw new LockstepError("E_CLOSED", { what: "text classifier" });
    const { vocabSize } = this.#model;
    const encoded = await encodeTexts(this.tokenizer, texts, {
      ...{ maxLength: this.maxLength, vocabSize },
    });
    return this.#classifier
      .logits(encoded)
      .map((logits) => classScores(this.#model, this.labels, logits));
  }

  close(): void {
    this.#isClosed = true;
    this.#classifier.close();
  }
}
