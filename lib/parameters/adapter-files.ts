import { type BottleneckConfig, writeBottleneckDirectory } from "#lib/checkpoint/adapter-hub/index";
import type { ParameterLayout, TensorSlot } from "#lib/core/parameter-layout";
import { saveBeside } from "./beside-adapter.js";
import type { SavedContent } from "./kind.js";
import type { StartingModel } from "./model.js";

interface TrainedBottlenecks {
  readonly model: StartingModel;
  readonly layout: ParameterLayout;
  /** Of the model's hidden states. */
  readonly width: number;
  /** Whether a trained tensor is no weight of the model. */
  readonly isAdded: (name: string) => boolean;
}

/** Writes adapters as AdapterHub's library does, with the base model's tokenizer and, for a classifier, its classes. */
export async function saveBottlenecks(
  directory: string,
  { model, layout: { tensors }, width, isAdded }: TrainedBottlenecks,
  config: BottleneckConfig,
  { valuesOf, dtype, openTarget }: SavedContent,
): Promise<void> {
  const read = (slot: TensorSlot) => ({
    ...{ name: slot.name, shape: slot.shape },
    read: async () => valuesOf(slot),
  });
  const { modelType, className = "" } = model.facts;
  const { label2id } = model.configChanges;
  await writeBottleneckDirectory(directory, {
    config,
    base: {
      hidden_size: width,
      model_class: `${className}${model.isClassifier ? "ForSequenceClassification" : className === "GPT2" ? "LMHeadModel" : "ForCausalLM"}`,
      model_name: model.name,
      model_type: modelType,
    },
    labels: (label2id ?? {}) as Readonly<Record<string, number>>,
    ...{ dtype, openTarget },
    baseDigest: await model.digest(),
    tensors: tensors.filter(({ name }) => isAdded(name)).map(read),
    head: tensors.filter(({ name }) => !isAdded(name)).map(read),
  });
  await saveBeside(directory, model);
}
