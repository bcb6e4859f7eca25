import { buildParameterLayout } from "#lib/core/parameter-layout";
import type { ParametersKind } from "./kind.js";
import { weightsIn } from "./model.js";
import { saveWholeModel } from "./whole-model.js";

/** Every weight of the model. */
export const full = {
  name: "full",
  title: "full fine-tuning",
  summary: "all weights are trained",
  turnedOnBy: ["finetuning_type", "full"],
  fields: {},
  saves: "model",
  changesForward: false,

  choose(_config, model, { wireDtype, rules }) {
    const layout = buildParameterLayout(model.weights, wireDtype, rules);
    return {
      layout,
      job: { kind: "full" },
      loadMasters: weightsIn(layout, model),
      lines: [],
      save: (directory, content) => saveWholeModel(directory, model, layout, content),
    };
  },
} as const satisfies ParametersKind<Record<never, never>>;
