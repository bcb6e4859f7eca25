import {
  classifierHeads,
  isSavedWhole,
  promptKey,
  writePromptDirectory,
} from "#lib/checkpoint/peft/index";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { saveBeside } from "./beside-adapter.js";
import type { SavedContent } from "./kind.js";
import { countLayers } from "./layers.js";
import type { StartingModel } from "./model.js";
import { promptWeightName } from "./prompt-layout.js";

interface TrainedPrompt {
  readonly model: StartingModel;
  readonly config: {
    readonly num_virtual_tokens: number;
    readonly prompt_tuning_init: string;
    readonly prompt_tuning_init_text: string | null;
  };
  readonly layout: ParameterLayout;
}

/** Writes virtual tokens as peft does, with the base model's tokenizer and, for a classifier, its classes. */
export async function savePrompt(
  directory: string,
  { model, config, layout: { tensors } }: TrainedPrompt,
  { valuesOf, dtype, openTarget }: SavedContent,
): Promise<void> {
  const whole = tensors.filter(({ name }) => name !== promptWeightName);
  const others = new Set(
    whole
      .filter(({ name }) => !isSavedWhole(classifierHeads, name))
      .map(({ name }) => name.replace(/\.[^.]+$/, "")),
  );
  await writePromptDirectory(directory, {
    config: {
      task_type: model.isClassifier ? "SEQ_CLS" : "CAUSAL_LM",
      base_model_name_or_path: model.name,
      revision: model.revision,
      num_virtual_tokens: config.num_virtual_tokens,
      token_dim: tensors.find(({ name }) => name === promptWeightName)?.shape[1] ?? 0,
      num_layers: countLayers(model.weights),
      prompt_tuning_init: config.prompt_tuning_init,
      prompt_tuning_init_text: config.prompt_tuning_init_text,
      modules_to_save: model.isClassifier ? [...classifierHeads, ...others] : null,
    },
    ...{ dtype, openTarget },
    baseDigest: await model.digest(),
    tensors: tensors.map((slot) => ({
      name: slot.name === promptWeightName ? slot.name : promptKey(slot.name),
      shape: slot.shape,
      read: async () => valuesOf(slot),
    })),
  });
  await saveBeside(directory, model);
}
