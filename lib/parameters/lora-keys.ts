import { z } from "zod";
import { quantizationFields } from "./quantization.js";

const moduleNames = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const layerNumber = z.int().min(0);
/** Numbers of float32 that are neither 0 nor infinite there, divided by any rank. */
const scale = z.number().min(1e-30).max(1e30);
/** No module of a model that is known has as many features. */
const rank = z.int().min(1).max(65_536);
const byModule = <Value extends z.ZodType>(value: Value) =>
  z
    .record(z.string().min(1), value)
    .transform((patterns) => Object.freeze(patterns))
    .nullable()
    .default(null);

// Names of TRL's options where it has one, else peft's; defaults of peft.LoraConfig (0.21).
export const loraFields = {
  use_peft: z.boolean().default(false).describe("train LoRA adapters instead of the weights"),
  lora_r: rank.default(8).describe("rank of an adapter"),
  lora_alpha: scale.default(8).describe("an adapter's scale is lora_alpha / lora_r"),
  lora_dropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe("rate at which training drops inputs of adapters"),
  lora_target_modules: moduleNames
    .transform(targetsOf)
    .nullable()
    .default(null)
    .describe("ends of module names, a regular expression, or all-linear; null: peft's usual ones"),
  lora_exclude_modules: moduleNames
    .transform(targetsOf)
    .nullable()
    .default(null)
    .describe("modules that get no adapter though they are targets, named in the same ways"),
  lora_layers_to_transform: z
    .union([layerNumber, z.array(layerNumber).min(1)])
    .transform((value) => Object.freeze(typeof value === "number" ? [value] : [...value]))
    .nullable()
    .default(null)
    .describe("numbers of the layers whose targets get adapters; null: all"),
  lora_layers_pattern: moduleNames
    .transform((value) => Object.freeze(typeof value === "string" ? namesIn(value) : [...value]))
    .nullable()
    .default(null)
    .describe("what holds the numbered layers, such as layers or h; null: whatever is numbered"),
  lora_rank_pattern: byModule(rank).describe(
    "ranks of single modules, by regular expressions for the ends of their paths: {q_proj: 16}",
  ),
  lora_alpha_pattern: byModule(scale).describe("the same for lora_alpha: {q_proj: 32}"),
  adapter_name_or_path: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe(
      "an adapter that is trained further, a directory or a name of the hub: keys of adapters that are not given are its own (name of LLaMA-Factory)",
    ),
  init_lora_weights: z
    .union([z.literal(true), z.literal("gaussian")])
    .default(true)
    .describe(
      "how A begins: true: uniform within 1 / sqrt(inputs), gaussian: normal of deviation 1 / r",
    ),
  lora_modules_to_save: moduleNames
    .transform((value) => Object.freeze(typeof value === "string" ? namesIn(value) : [...value]))
    .nullable()
    .default(null)
    .describe("modules that are trained and saved whole"),
  loraplus_lr_ratio: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe(
      "LoRA+: the rate of B, and of trained norms and biases, is so many times learning_rate (name of LLaMA-Factory)",
    ),
  use_dora: z
    .boolean()
    .default(false)
    .describe("DoRA: rows of the adapted weights have norms that are trained apart"),
  ...quantizationFields,
  use_rslora: z.boolean().default(false).describe("scale lora_alpha / sqrt(lora_r)"),
  ensure_weight_tying: z
    .boolean()
    .default(false)
    .describe(
      "a trained embed_tokens or lm_head stays tied to the other, where the model ties them; false: each is a weight of its own, as in peft",
    ),
};

export type LoraSettings = z.output<z.ZodObject<typeof loraFields>>;

/** `a,b` are names; other text is one. */
function namesIn(value: string): string[] {
  const names = value.split(",").map((name) => name.trim());
  return names.length > 1 && names.every((name) => /^[\w.-]+$/.test(name)) ? names : [value];
}

/** `q_proj,v_proj` are names; other text is a regular expression, or "all-linear". */
function targetsOf(value: string | string[]): string | readonly string[] {
  // TRL's command line makes a list of one of it.
  const word = typeof value === "string" ? value : value.length === 1 ? value[0] : undefined;
  if (word?.toLowerCase() === "all-linear") return "all-linear";
  if (typeof value !== "string") return Object.freeze([...value]);
  const names = value.split(",").map((name) => name.trim());
  const isName = names.length > 1 ? /^[\w.]+$/ : /^\w+$/;
  return names.every((name) => isName.test(name)) ? Object.freeze(names) : value;
}
