import type { ModelWeights } from "#lib/checkpoint/model-weights";
import { LockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import { fillNormal, RandomStream } from "#lib/core/random";
import {
  type ClassifierCheckpoint,
  classifierCheckpoint,
  isClassifier,
} from "#lib/models/classifier-checkpoint";
import { isEncoder } from "#lib/models/facts";

type Json = Readonly<Record<string, unknown>>;

/** A checkpoint as a classifier: its configuration, and the weights that it has or gets. */
interface ClassifierModel {
  readonly configChanges: Json;
  readonly weights: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Weights of the head that the checkpoint does not have, by name. */
  readonly newWeights: ReadonlyMap<string, Float32Array>;
}

/**
 * A checkpoint with a classifier's head over the labels of a data set. What the head lacks begins as
 * transformers lets it begin: weights normal with `initializer_range`, biases 0.
 *
 * @throws E_MODEL_UNSUPPORTED, E_CONFIG_CONFLICT where the checkpoint's own head has other classes
 */
export function classifierModel(
  modelConfig: Json,
  weights: ModelWeights,
  options: {
    readonly labels: readonly string[];
    readonly problemType: string;
    readonly padTokenId: number;
    readonly seed: number;
  },
): ClassifierModel {
  const { labels } = options;
  const { newWeights: drawn, ...checkpoint } = newHead(modelConfig, options);
  const newWeights = new Map<string, Float32Array>();
  for (const { name, shape } of checkpoint.head) {
    const found = weights.has(name) ? weights.info(name).shape : undefined;
    if (found === undefined) newWeights.set(name, drawn.get(name) as Float32Array);
    else if (found.join() !== shape.join()) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "model_name_or_path and dataset",
        reason: `the model's ${name} is [${found.join(", ")}], and the data have ${options.problemType === "regression" ? `${counted(labels.length, "number")} a row` : `the ${labels.length} classes ${labels.slice(0, 20).join(", ")}`}`,
      });
    }
  }
  const isOfHead = new Set(checkpoint.head.map(({ name }) => name));
  const base = weights
    .names()
    .filter((name) => checkpoint.isOfBase(name) && !isOfHead.has(name))
    .map((name) => ({ name, shape: weights.info(name).shape }));
  return {
    configChanges: checkpoint.configChanges,
    weights: [...base, ...checkpoint.head].sort((a, b) => (a.name < b.name ? -1 : 1)),
    newWeights,
  };
}

/**
 * A head over labels that begins anew.
 *
 * @throws E_MODEL_UNSUPPORTED for a model that gets none
 */
export function newHead(
  modelConfig: Json,
  options: {
    readonly labels: readonly string[];
    readonly problemType: string;
    readonly padTokenId: number;
    readonly seed: number;
    /** Its tensors are drawn from the random streams of this number on. @default 0 */
    readonly firstStream?: number;
  },
): ClassifierCheckpoint & { readonly newWeights: ReadonlyMap<string, Float32Array> } {
  const { seed, firstStream = 0 } = options;
  const checkpoint = classifierCheckpoint(modelConfig, options);
  if (checkpoint === undefined) {
    const what = `A classifier of model_type ${JSON.stringify(modelConfig["model_type"])}`;
    throw new LockstepError("E_MODEL_UNSUPPORTED", { what });
  }
  const newWeights = checkpoint.head.map(({ name, shape }, index) => {
    const values = new Float32Array(shape.reduce((product, dim) => product * dim, 1));
    if (shape.length > 1) {
      const stream = new RandomStream(seed, "initialization", firstStream + index);
      fillNormal(values, checkpoint.initializerRange, stream);
    }
    return [name, values] as const;
  });
  return { ...checkpoint, newWeights: new Map(newWeights) };
}

/** @throws E_CONFIG_CONFLICT where texts alone cannot be what the model learns */
export function refuseClassifierOfTexts(modelConfig: Json): void {
  if (!isClassifier(modelConfig) && !isEncoder(modelConfig)) return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "model_name_or_path and dataset",
    reason: `a ${String(modelConfig["model_type"])} ${isClassifier(modelConfig) ? "classifier" : "encoder"} learns rows with a label, and the data set has none`,
  });
}
