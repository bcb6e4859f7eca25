import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import type { ParameterLayout, RateOf } from "#lib/core/parameter-layout";
import { countLayers, levelOf } from "./layers.js";

const text = z.string().min(1);
const rate = z.number().min(0);

/** Keys of rates that are not the same for all that is trained; the first three are axolotl's. */
export const rateFields = {
  lr_groups: z
    .array(z.strictObject({ name: text, modules: z.array(text).min(1), lr: rate }))
    .min(1)
    .nullable()
    .default(null)
    .describe("learning rates of what has one of `modules` in its name; the first group counts"),
  embedding_lr: rate
    .nullable()
    .default(null)
    .describe("learning rate of embedding tables and lm_head that are trained as a whole"),
  embedding_lr_scale: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe("the same as so many times learning_rate"),
  layerwise_lr_decay: z
    .number()
    .gt(0)
    .max(1)
    .nullable()
    .default(null)
    .describe(
      "what is above the layers learns at learning_rate, the last layer at this times it, and so on down to the embeddings",
    ),
};

type RateSettings = z.output<z.ZodObject<typeof rateFields>> & {
  readonly learning_rate: number;
};

/** Rules over these keys that depend on nothing else. @throws E_CONFIG_CONFLICT */
export function checkRates(
  config: RateSettings & { readonly loraplus_lr_ratio: number | null },
): void {
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  const { lr_groups: groups, embedding_lr, embedding_lr_scale, learning_rate } = config;
  if (groups !== null && config.loraplus_lr_ratio !== null) {
    conflict("lr_groups and loraplus_lr_ratio", "both name the rates of adapters");
  }
  if (embedding_lr !== null && embedding_lr_scale !== null) {
    conflict("embedding_lr and embedding_lr_scale", "both name the rate of embeddings");
  }
  if (learning_rate === 0 && (groups !== null || embedding_lr !== null)) {
    const key = groups === null ? "embedding_lr" : "lr_groups";
    const reason = "the schedule is of learning_rate, and 0 has no multiple that is another rate";
    conflict(`learning_rate and ${key}`, reason);
  }
}

interface RatedModel {
  /** Of the whole model, trained or not. */
  readonly weights: readonly { readonly name: string }[];
  readonly isEmbeddingTable: (name: string) => boolean;
}

/** What the rates of a configuration are for a model. */
interface Rates {
  readonly rateOf: RateOf;
  /**
   * Lines for a person.
   * @throws E_CONFIG_INVALID for a module of `lr_groups`, or embeddings, that nothing trained belongs to
   */
  readonly describe: (trained: ParameterLayout) => readonly string[];
}

/**
 * Rates as multiples of `learning_rate`, so that they follow its schedule. A tensor that a group or a key of
 * embeddings names has that rate; others are decayed by their distance from the top.
 */
export function ratesOf(config: RateSettings, model: RatedModel): Rates {
  const { lr_groups: groups, learning_rate: base } = config;
  const modules = (groups ?? []).flatMap(({ name: group, modules: marks, lr }) =>
    marks.map((mark) => ({ group, mark, lr })),
  );
  const moduleOf = (name: string) => modules.find(({ mark }) => name.includes(mark));
  const embeddings =
    config.embedding_lr === null ? config.embedding_lr_scale : config.embedding_lr / base;
  const isEmbedding = (name: string): boolean =>
    model.isEmbeddingTable(name) || /(^|\.)lm_head\.(weight|bias)$/.test(name);
  const decay = layerwiseDecay(config.layerwise_lr_decay, model);
  return {
    rateOf: ({ name }) => {
      const module = moduleOf(name);
      if (module !== undefined) return module.lr / base;
      return embeddings !== null && isEmbedding(name) ? embeddings : decay(name);
    },
    describe: ({ tensors, regions }) => {
      const names = tensors.map(({ name }) => name);
      const idle = modules.find((each) => !names.some((name) => moduleOf(name) === each));
      if (idle !== undefined) throw idleModule(idle);
      const rated = names.filter((name) => moduleOf(name) === undefined);
      if (embeddings !== null && !rated.some(isEmbedding)) throw idleEmbeddings(config);
      const rates = [...new Set(regions.map(({ rateMultiplier }) => rateMultiplier))];
      if (rates.every((each) => each === 1)) return [];
      const [least, most] = [Math.min(...rates), Math.max(...rates)].map((each) =>
        Number((each * base).toPrecision(3)),
      );
      return [`learning rates: ${counted(rates.length, "group")}, from ${least} to ${most}`];
    },
  };
}

/**
 * ELECTRA's rates (Clark et al. 2020), which ULMFiT calls discriminative (Howard and Ruder 2018): a decay for each
 * layer between a weight and the top. Embeddings are below the first layer; what is neither is the top.
 */
function layerwiseDecay(
  decay: number | null,
  { weights, isEmbeddingTable }: RatedModel,
): (name: string) => number {
  if (decay === null) return () => 1;
  const top = countLayers(weights) + 1;
  return (name) => decay ** (top - Math.min(levelOf(name, isEmbeddingTable) + 1, top));
}

function idleModule({ group, mark }: { readonly group: string; readonly mark: string }) {
  return new LockstepError("E_CONFIG_INVALID", {
    ...{ key: "lr_groups", where: "" },
    expected: "groups with parts of names of trained weights that no group before them has",
    got: `${JSON.stringify(mark)} in the group ${JSON.stringify(group)}`,
  });
}

function idleEmbeddings({ embedding_lr: lr, embedding_lr_scale: scale }: RateSettings) {
  return new LockstepError("E_CONFIG_INVALID", {
    ...{ key: lr === null ? "embedding_lr_scale" : "embedding_lr", where: "" },
    expected: "null, since no embedding table and no lm_head is trained at a rate of it",
    got: String(lr ?? scale),
  });
}
