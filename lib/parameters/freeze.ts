import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { counted, withCommas } from "#lib/core/format";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import type { ParametersKind } from "./kind.js";
import { countLayers, layerOf } from "./layers.js";
import { numElements, type StartingModel, weightsIn } from "./model.js";
import { saveWholeModel } from "./whole-model.js";

const names = z
  .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
  .transform((value) =>
    Object.freeze(
      typeof value === "string" ? value.split(",").map((name) => name.trim()) : [...value],
    ),
  );

// Names and defaults of LLaMA-Factory.
const fields = {
  freeze_trainable_layers: z
    .int()
    .default(2)
    .describe("how many layers are trained: n > 0 the last ones, n < 0 the first ones"),
  freeze_trainable_modules: names
    .default(Object.freeze(["all"]))
    .describe(
      "parts of those layers that are trained, such as mlp or self_attn; all: whole layers",
    ),
  freeze_extra_modules: names
    .nullable()
    .default(null)
    .describe(
      "modules outside of the layers that are trained too, such as lm_head or embed_tokens",
    ),
};

type FreezeSettings = z.output<z.ZodObject<typeof fields>>;

/** Some layers of the model, or parts of them; the other weights stay as they are. */
export const freeze = {
  name: "freeze",
  title: "Freezing",
  summary: "some layers (finetuning_type: freeze)",
  turnedOnBy: ["finetuning_type", "freeze"],
  fields,
  saves: "model",
  changesForward: false,

  choose(config, model, { wireDtype, frozenDtype, rules }) {
    const { isTrained, layers } = trainedBy(config, model.weights);
    // Nobody else has the head of a new classifier.
    const isNew = new Set(model.newWeights);
    const trains = ({ name }: { readonly name: string }): boolean =>
      isNew.has(name) || isTrained(name);
    const layout = buildParameterLayout(model.weights.filter(trains), wireDtype, rules);
    const frozen = buildParameterLayout(
      model.weights.filter((weight) => !trains(weight)),
      frozenDtype,
    );
    if (layout.tensors.length === 0) {
      throw new LockstepError("E_CONFIG_INVALID", {
        key: "freeze_trainable_layers",
        expected: "a number other than 0, or freeze_extra_modules beside it",
        got: "nothing that is trained",
        where: "",
      });
    }
    const numTrained = numElements(layout.tensors);
    const total = numTrained + numElements(frozen.tensors);
    return {
      layout,
      job: { kind: "freeze" },
      loadMasters: weightsIn(layout, model),
      ...(frozen.tensors.length === 0 ? {} : { frozen, loadFrozen: weightsIn(frozen, model) }),
      lines: [
        `${layers}: ${withCommas(numTrained)} of ${withCommas(total)} parameters are trained`,
      ],
      save: (directory, content) => saveWholeModel(directory, model, layout, content),
    };
  },
} as const satisfies ParametersKind<typeof fields>;

/**
 * LLaMA-Factory's choice, which looks for parts of names: `.11.mlp` for a part of a layer, and an extra module
 * wherever its name occurs, so that `norm` is every norm.
 *
 * @throws E_CONFIG_INVALID for modules that there are none of
 */
function trainedBy(
  config: FreezeSettings,
  weights: StartingModel["weights"],
): { readonly isTrained: (name: string) => boolean; readonly layers: string } {
  const numLayers = countLayers(weights);
  const parts = new Set(weights.flatMap(({ name }) => partOf(name) ?? []));
  const others = new Set(
    weights.flatMap(({ name }) => (layerOf(name) < 0 ? (name.split(".").at(-2) ?? []) : [])),
  );
  const { freeze_trainable_layers: asked, freeze_trainable_modules: modules } = config;
  const extra = config.freeze_extra_modules ?? [];
  checkNames("freeze_trainable_modules", modules, new Set(["all", ...parts]));
  checkNames("freeze_extra_modules", extra, others);
  if (asked === 0 && !modules.includes("all")) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "freeze_trainable_layers and freeze_trainable_modules",
      reason: "of no layer no part is trained",
    });
  }
  const count = Math.min(Math.abs(asked), numLayers);
  const first = asked > 0 ? numLayers - count : 0;
  const marks = Array.from({ length: count }, (_, i) =>
    modules.map((module) => `.${first + i}.${module === "all" ? "" : module}`),
  ).flat();
  return {
    isTrained: (name) => [...marks, ...extra].some((mark) => name.includes(mark)),
    layers: [
      count === 0
        ? "no layer"
        : `the ${asked > 0 ? "last" : "first"} ${count} of ${counted(numLayers, "layer")}`,
      ...(modules.includes("all") ? [] : [`(${modules.join(", ")})`]),
      ...(extra.length === 0 ? [] : [`and ${extra.join(", ")}`]),
    ].join(" "),
  };
}

/** The part of a layer that a weight lies in, such as `mlp`. */
const partOf = (name: string): string | undefined => /\.\d+\.([^.]+)\./.exec(name)?.[1];

/** @throws E_CONFIG_INVALID */
function checkNames(key: string, asked: readonly string[], known: ReadonlySet<string>): void {
  const unknown = asked.find((name) => !known.has(name));
  if (unknown === undefined) return;
  throw new LockstepError("E_CONFIG_INVALID", {
    ...{ key, got: JSON.stringify(unknown), where: "" },
    expected: `names of modules of this model (${[...known].sort().join(", ")})`,
  });
}
