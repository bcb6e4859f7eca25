import { LockstepError } from "#lib/core/errors/index";
import { withCommas } from "#lib/core/format";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import type { ParametersKind } from "./kind.js";
import { numElements, weightsIn } from "./model.js";
import { saveWholeModel } from "./whole-model.js";

/** Biases alone, and the head of a new classifier (BitFit, Ben Zaken et al. 2021, arXiv 2106.10199). */
export const bitfit = {
  name: "bitfit",
  title: "BitFit",
  summary: "biases (finetuning_type: bitfit)",
  turnedOnBy: ["finetuning_type", "bitfit"],
  fields: {},
  saves: "model",
  changesForward: false,

  choose(_config, model, { wireDtype, frozenDtype, rules }) {
    // Nobody else has the head of a new classifier.
    const isNew = new Set(model.newWeights);
    const isBias = (name: string): boolean => name.endsWith(".bias");
    const trains = ({ name }: { readonly name: string }): boolean =>
      isNew.has(name) || isBias(name);
    if (!model.weights.some(({ name }) => isBias(name) && !isNew.has(name))) {
      throw new LockstepError("E_CONFIG_UNSUPPORTED", {
        ...{ key: "finetuning_type", value: "bitfit", where: "" },
        reason: `this ${model.facts.modelType} model has no biases; GPT-2, BERT, RoBERTa, DistilBERT and Qwen2 have some, and Llama with attention_bias or mlp_bias`,
      });
    }
    const layout = buildParameterLayout(model.weights.filter(trains), wireDtype, rules);
    const frozen = buildParameterLayout(
      model.weights.filter((weight) => !trains(weight)),
      frozenDtype,
    );
    const numTrained = numElements(layout.tensors);
    const total = numTrained + numElements(frozen.tensors);
    const head = isNew.size === 0 ? "" : " and the new head";
    return {
      layout,
      job: { kind: "bitfit" },
      loadMasters: weightsIn(layout, model),
      frozen,
      loadFrozen: weightsIn(frozen, model),
      lines: [
        `biases${head}: ${withCommas(numTrained)} of ${withCommas(total)} parameters are trained`,
      ],
      save: (directory, content) => saveWholeModel(directory, model, layout, content),
    };
  },
} as const satisfies ParametersKind<Record<never, never>>;
