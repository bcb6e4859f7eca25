import { factsOf } from "./facts.js";
import type { WeightSpec } from "./model.js";

/**
 * What a checkpoint needs to become a classifier, for those who load no tfjs: the model folders have
 * the arithmetic.
 */

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

/**
 * What a classifier's checkpoint learnt, as transformers' `problem_type` says it: one that names none and has one
 * output is a regression.
 */
export function knownProblem(modelConfig: Readonly<Record<string, unknown>>): string | undefined {
  if (!isClassifier(modelConfig)) return undefined;
  const { problem_type: problem, num_labels: numLabels } = modelConfig;
  if (typeof problem === "string") return problem;
  const hasOne = numLabels === 1 || knownLabels(modelConfig).length === 1;
  return hasOne ? "regression" : undefined;
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
  const facts = factsOf(modelConfig);
  if (facts === undefined) return undefined;
  const { basePrefix, unusedPrefix, classifier: head, keys, defaults } = facts;
  const widths = keys.width.map((key) => modelConfig[key] ?? undefined);
  const width = Number(widths.find((value) => value !== undefined) ?? defaults.width);
  const range = modelConfig["initializer_range"];
  return {
    configChanges: {
      architectures: [`${facts.className}ForSequenceClassification`],
      id2label: Object.fromEntries(labels.map((name, number) => [String(number), name])),
      label2id: Object.fromEntries(labels.map((name, number) => [name, number])),
      ...(modelConfig["num_labels"] === undefined ? {} : { num_labels: labels.length }),
      ...(problemType === undefined ? {} : { problem_type: problemType }),
      ...(padTokenId !== null && (modelConfig["pad_token_id"] ?? null) === null
        ? { pad_token_id: padTokenId }
        : {}),
    },
    head: [
      ...head.dense.flatMap((module) => [
        { name: `${module}.weight`, shape: [width, width] },
        { name: `${module}.bias`, shape: [width] },
      ]),
      { name: `${head.output}.weight`, shape: [labels.length, width] },
      ...(head.outputHasBias ? [{ name: `${head.output}.bias`, shape: [labels.length] }] : []),
    ],
    outputWeight: `${head.output}.weight`,
    initializerRange: typeof range === "number" ? range : 0.02,
    isOfBase: (name) =>
      name.startsWith(basePrefix) && (unusedPrefix === undefined || !name.startsWith(unusedPrefix)),
  };
}
