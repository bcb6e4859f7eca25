import type { WeightSpec } from "./model.js";

/**
 * What a checkpoint needs to become a classifier, for those who load no tfjs: the model folders have
 * the arithmetic.
 */

interface Family {
  /** First part of the names of the base model's weights. */
  readonly prefix: string;
  /** The class of transformers, without `ForSequenceClassification`. */
  readonly className: string;
  /** The field of config.json that holds the model's width. */
  readonly widthField: string;
  /** Modules of the head, in order; the last one gives the labels' scores. */
  readonly dense: readonly string[];
  readonly output: string;
  readonly outputHasBias: boolean;
  /** Weights under the prefix that the classifier does not use. */
  readonly unused?: string;
}

const decoder = (className: string): Family => ({
  prefix: "model.",
  className,
  widthField: "hidden_size",
  dense: [],
  output: "score",
  outputHasBias: false,
});

const encoder = { widthField: "hidden_size", output: "classifier", outputHasBias: true } as const;

/** By `model_type` of config.json. */
const families: Readonly<Record<string, Family>> = {
  bert: { ...encoder, prefix: "bert.", className: "Bert", dense: ["bert.pooler.dense"] },
  roberta: {
    ...encoder,
    prefix: "roberta.",
    className: "Roberta",
    dense: ["classifier.dense"],
    output: "classifier.out_proj",
    unused: "roberta.pooler.",
  },
  distilbert: {
    ...encoder,
    prefix: "distilbert.",
    className: "DistilBert",
    widthField: "dim",
    dense: ["pre_classifier"],
  },
  gpt2: { ...decoder("GPT2"), prefix: "transformer.", widthField: "n_embd" },
  llama: decoder("Llama"),
  mistral: decoder("Mistral"),
  phi3: decoder("Phi3"),
  qwen2: decoder("Qwen2"),
  qwen3: decoder("Qwen3"),
  gemma2: decoder("Gemma2"),
  gemma3_text: decoder("Gemma3Text"),
};

const defaultWidths: Readonly<Record<string, number>> = { distilbert: 768, gpt2: 768 };

export interface ClassifierCheckpoint {
  /** Fields of config.json that are new or changed. */
  readonly configChanges: Readonly<Record<string, unknown>>;
  /** Weights that the head has, whether or not the checkpoint has them. */
  readonly head: readonly WeightSpec[];
  /** The weight of the head with a row a class. */
  readonly outputWeight: string;
  /** Standard deviation of the weights that are made anew; their biases are 0. */
  readonly initializerRange: number;
  /** Whether a weight of the checkpoint belongs to the base model. */
  readonly isOfBase: (name: string) => boolean;
}

/** Whether a checkpoint is a classifier already. */
export function isClassifier(modelConfig: Readonly<Record<string, unknown>>): boolean {
  const list = modelConfig["architectures"];
  const name: unknown = Array.isArray(list) ? list[0] : undefined;
  return typeof name === "string" && name.endsWith("ForSequenceClassification");
}

/** Whether the model reads both sides of a token, so that it predicts no next one. */
export function isEncoder({ model_type: type }: Readonly<Record<string, unknown>>): boolean {
  return type === "bert" || type === "roberta" || type === "distilbert";
}

/** `id2label` of a classifier, by number; none where there is none. */
export function knownLabels(modelConfig: Readonly<Record<string, unknown>>): readonly string[] {
  const names = modelConfig["id2label"];
  if (!isClassifier(modelConfig) || typeof names !== "object" || names === null) return [];
  const byNumber = names as Readonly<Record<string, unknown>>;
  return Object.keys(byNumber).map((_, number) => {
    const name = byNumber[number];
    return typeof name === "string" ? name : `LABEL_${number}`;
  });
}

/** @returns undefined for a `model_type` that is not known */
export function classifierCheckpoint(
  modelConfig: Readonly<Record<string, unknown>>,
  options: {
    readonly labels: readonly string[];
    /** What the head learns; absent: the checkpoint's own. */
    readonly problemType?: string;
    readonly padTokenId: number | null;
  },
): ClassifierCheckpoint | undefined {
  const { labels, problemType, padTokenId } = options;
  const modelType = String(modelConfig["model_type"]);
  const family = Object.hasOwn(families, modelType) ? families[modelType] : undefined;
  if (family === undefined) return undefined;
  const { prefix, unused } = family;
  const width = Number(modelConfig[family.widthField] ?? defaultWidths[modelType]);
  const range = modelConfig["initializer_range"];
  return {
    configChanges: {
      architectures: [`${family.className}ForSequenceClassification`],
      id2label: Object.fromEntries(labels.map((name, number) => [String(number), name])),
      label2id: Object.fromEntries(labels.map((name, number) => [name, number])),
      ...(modelConfig["num_labels"] === undefined ? {} : { num_labels: labels.length }),
      ...(problemType === undefined ? {} : { problem_type: problemType }),
      ...(padTokenId !== null && (modelConfig["pad_token_id"] ?? null) === null
        ? { pad_token_id: padTokenId }
        : {}),
    },
    head: [
      ...family.dense.flatMap((module) => [
        { name: `${module}.weight`, shape: [width, width] },
        { name: `${module}.bias`, shape: [width] },
      ]),
      { name: `${family.output}.weight`, shape: [labels.length, width] },
      ...(family.outputHasBias ? [{ name: `${family.output}.bias`, shape: [labels.length] }] : []),
    ],
    outputWeight: `${family.output}.weight`,
    initializerRange: typeof range === "number" ? range : 0.02,
    isOfBase: (name) =>
      name.startsWith(prefix) && (unused === undefined || !name.startsWith(unused)),
  };
}
