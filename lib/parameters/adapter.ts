import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { counted, withCommas } from "#lib/core/format";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { fillNormal, RandomStream } from "#lib/core/random";
import { fillRange } from "#lib/core/wire-space";
import { bottleneckName, bottleneckPrefix } from "#lib/checkpoint/adapter-hub/index";
import { saveBottlenecks } from "./adapter-files.js";
import type { BottleneckJob } from "./adapter-layout.js";
import type { ParametersKind } from "./kind.js";
import { countLayers } from "./layers.js";
import { numElements, type StartingModel, weightsIn } from "./model.js";
import { tokenTable } from "./token-table.js";

// Names of AdapterHub's adapters (1.3): AdapterArguments and its configurations' fields.
const fields = {
  adapter_config: z
    .enum(["seq_bn", "double_seq_bn"])
    .default("seq_bn")
    .describe(
      "seq_bn: a bottleneck behind the feed-forward part of each layer (Pfeiffer); double_seq_bn: one behind attention too (Houlsby)",
    ),
  reduction_factor: z
    .number()
    .min(0.01)
    .default(16)
    .describe("how many times narrower than the model a bottleneck is"),
  non_linearity: z
    .enum(["relu", "swish", "silu", "gelu", "gelu_new", "tanh"])
    .nullable()
    .default(null)
    .describe("null: relu of seq_bn, swish of double_seq_bn"),
};

/** Differences of the library's two configurations, but for where their adapters are. */
const kinds = {
  seq_bn: { parts: ["feedForward"], readsStream: true, activation: "relu" },
  double_seq_bn: { parts: ["attention", "feedForward"], readsStream: false, activation: "swish" },
} as const;

/** Standard deviation of first weights, BERT's. */
const initialDeviation = 0.02;

/** Bottlenecks behind parts of the layers, with their own biases and activation; the model stays as it is. */
export const adapter = {
  name: "adapter",
  title: "bottleneck adapters",
  summary: "bottleneck adapters (finetuning_type: adapter)",
  turnedOnBy: ["finetuning_type", "adapter"],
  fields,
  wireDtype: "float32",
  saves: "adapter",
  changesForward: true,

  choose(config, model, { wireDtype, frozenDtype, rules, seed }) {
    const { parts, readsStream, activation: usual } = kinds[config.adapter_config];
    const activation = config.non_linearity ?? usual;
    const { bottlenecks } = model.facts;
    if (bottlenecks === undefined) {
      throw new LockstepError("E_CONFIG_UNSUPPORTED", {
        ...{ key: "finetuning_type", value: "adapter", where: "" },
        reason: `AdapterHub's library has no ${model.facts.modelType}; BERT, RoBERTa, DistilBERT, GPT-2, Llama and Mistral have these adapters`,
      });
    }
    const whole = headOf(model);
    const isWhole = new Set(whole.map(({ name }) => name));
    const [, width] = tokenTable(model).shape;
    const narrow = Math.max(1, Math.floor(width / config.reduction_factor));
    const prefixes: Readonly<Record<string, string>> = Object.fromEntries(
      Array.from({ length: countLayers(model.weights) }, (_, layer) =>
        parts.map((part) => [
          `${layer}.${part}`,
          bottleneckPrefix(bottlenecks[part], layer, bottleneckName),
        ]),
      ).flat(),
    );
    const added = Object.values(prefixes).flatMap((prefix) => [
      { name: `${prefix}.adapter_down.0.weight`, shape: [narrow, width] },
      { name: `${prefix}.adapter_down.0.bias`, shape: [narrow] },
      { name: `${prefix}.adapter_up.weight`, shape: [width, narrow] },
      { name: `${prefix}.adapter_up.bias`, shape: [width] },
    ]);
    const names = added.map(({ name }) => name);
    const layout = buildParameterLayout(
      [...added, ...whole].sort((a, b) => (a.name < b.name ? -1 : 1)),
      wireDtype,
      rules,
    );
    const frozen = buildParameterLayout(
      model.weights.filter(({ name }) => !isWhole.has(name)),
      frozenDtype,
    );
    const numTrained = numElements(layout.tensors);
    const total = numTrained + numElements(frozen.tensors);
    const what = `${counted(Object.keys(prefixes).length, "adapter")} of width ${narrow}`;
    return {
      layout,
      frozen,
      job: { kind: "adapter", prefixes, readsStream, activation } satisfies BottleneckJob,
      loadMasters: (range, into) =>
        fillRange(layout, range, into, async ({ name, size }) => {
          const place = names.indexOf(name);
          if (place < 0) return model.read(name);
          const values = new Float32Array(size);
          const stream = new RandomStream(seed, "initialization", 1000 + place);
          if (name.endsWith(".weight")) fillNormal(values, initialDeviation, stream);
          return values;
        }),
      loadFrozen: weightsIn(frozen, model),
      lines: [
        `${what}${whole.length === 0 ? "" : " and the head"}: ${withCommas(numTrained)} of ${withCommas(total)} parameters are trained`,
      ],
      adapterBase: model.name,
      save: (directory, content) =>
        saveBottlenecks(
          directory,
          { model, layout, width, isAdded: (name) => !isWhole.has(name) },
          {
            ...{ mh_adapter: parts.length === 2, original_ln_before: readsStream },
            ...{ non_linearity: activation, reduction_factor: config.reduction_factor },
          },
          content,
        ),
    };
  },
} as const satisfies ParametersKind<typeof fields>;

/** A classifier's head, which the library trains whole, and what the checkpoint lacks: nobody else has it. */
function headOf({ weights, facts, newWeights, isClassifier }: StartingModel) {
  const isNew = new Set(newWeights);
  const { basePrefix = "" } = facts;
  return weights.filter(
    ({ name }) => isNew.has(name) || (isClassifier && !name.startsWith(basePrefix)),
  );
}
