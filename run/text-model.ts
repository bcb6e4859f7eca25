import { LockstepError } from "#lib/core/errors/index";
import { checkVocabulary, loadTokenizer, type Tokenizer } from "#lib/data/index";
import type { Model, Task } from "#lib/models/index";
import { checkArgument, text as isText } from "./check-arguments.js";
import { findModel, type ModelOptions } from "./model-place.js";
import type { TextOrPair } from "./text-options.js";

/** A model that is open for reading, with its tokenizer; close it once its weights are read. */
interface OpenTextModel<T extends Task> {
  readonly model: Extract<Model, { readonly task: T }>;
  readonly modelDirectory: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly tokenizer: Tokenizer;
  /** About the files, for a person. */
  readonly warnings: readonly string[];
  readonly readWeight: (name: string) => Promise<Float32Array>;
  readonly close: () => Promise<void>;
}

/**
 * Opens a model, or an adapter in its base model, for what it is asked to do.
 *
 * @throws E_MODEL_TASK, and what finding and opening it throws
 */
export async function openTextModel<const T extends Task>(
  nameOrPath: string,
  tasks: readonly T[],
  options: ModelOptions,
): Promise<OpenTextModel<T>> {
  checkArgument("model", nameOrPath, {
    expected: "a directory, or a name of the cache or the hub",
    isValid: (value) => isText.isValid(value) && value !== "",
  });
  const { openModel } = await import("./open-model.js");
  const { modelDirectory, tokenizerDirectory, ...place } = await findModel(nameOrPath, options);
  const tokenizer = await loadTokenizer(tokenizerDirectory, modelDirectory);
  const opened = await openModel({ modelDirectory, tokenizerDirectory, ...place });
  const { model } = opened;
  if (!isOfTask(model, tasks)) {
    await opened.close();
    const { task, modelType } = model;
    throw new LockstepError("E_MODEL_TASK", {
      ...{ model: nameOrPath, task, modelType, expected: tasks.join(" or ") },
    });
  }
  return { ...opened, model, modelDirectory, tokenizer };
}

const isOfTask = <T extends Task>(
  model: Model,
  tasks: readonly T[],
): model is Extract<Model, { readonly task: T }> => tasks.some((task) => task === model.task);

/**
 * Texts with the tokens that the post-processor adds.
 *
 * @throws E_ARGUMENT, E_SEQUENCE_TOO_LONG, since nothing is cut, E_TEXT_UNUSABLE for a text without tokens,
 *   E_TOKEN_OUT_OF_VOCABULARY
 */
export async function encodeTexts(
  tokenizer: Tokenizer,
  texts: readonly TextOrPair[],
  { maxLength, vocabSize }: { readonly maxLength: number; readonly vocabSize: number },
) {
  checkArgument("texts", texts, {
    expected: "a list of texts, or of pairs of texts",
    isValid: (value) => Array.isArray(value) && value.every(isTextOrPair),
  });
  return Promise.all(
    texts.map(async (each, index) => {
      const [text, pair] = typeof each === "string" ? [each, null] : each;
      const encoded = await tokenizer.encodePair(text, pair);
      const { length } = encoded.ids;
      const place = `text ${index + 1}`;
      if (length === 0) {
        throw new LockstepError("E_TEXT_UNUSABLE", { place, problem: "it has no tokens" });
      }
      if (length > maxLength) {
        throw new LockstepError("E_SEQUENCE_TOO_LONG", { sequenceLength: length, maxLength });
      }
      checkVocabulary(encoded.ids, { tokenizer, vocabSize, document: place });
      return encoded;
    }),
  );
}

const isTextOrPair = (value: unknown): boolean =>
  isText.isValid(value) ||
  (Array.isArray(value) && value.length === 2 && value.every(isText.isValid));
