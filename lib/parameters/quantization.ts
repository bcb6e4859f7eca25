import { z } from "zod";
import {
  type AdapterFacts,
  type BaseModel,
  isInputMajor,
  quantisableWeights,
} from "#lib/checkpoint/peft/index";
import { isNf4, type WireDtype, type WireForm } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { withCommas } from "#lib/core/format";
import {
  buildParameterLayout,
  type FormOf,
  type ParameterLayout,
  regionAt,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { numElements } from "./model.js";

// Names and defaults of transformers' BitsAndBytesConfig, but for its type of 4 bits, which is fp4 there.
export const quantizationFields = {
  load_in_4bit: z
    .boolean()
    .default(false)
    .describe("QLoRA: linear weights that stay as they are, but for lm_head, are held in 4 bits"),
  bnb_4bit_quant_type: z
    .enum(["nf4"])
    .default("nf4")
    .describe("the 4-bit type; bitsandbytes' fp4 is not here"),
  bnb_4bit_use_double_quant: z
    .boolean()
    .default(false)
    .describe("the scales of 4-bit weights are in 8 bits: 4.16 bits a weight, not 4.5"),
  bnb_4bit_compute_dtype: z
    .enum(["float32", "bfloat16", "float16"])
    .nullable()
    .default(null)
    .describe(
      "what 4-bit weights become for a product: the run's own type (bf16, fp16), or refused",
    ),
};

type QuantizationSettings = z.output<z.ZodObject<typeof quantizationFields>>;

/**
 * The form of a matrix that stays as it is: of 4 bits where that is asked for and bitsandbytes quantises the matrix in
 * transformers, that is each linear weight but the output projection's; else the products' type.
 *
 * @throws E_CONFIG_CONFLICT where the products have another type than was asked for
 */
export function frozenFormOf(
  config: QuantizationSettings,
  base: BaseModel,
  productDtype: WireDtype,
): FormOf {
  const { load_in_4bit, bnb_4bit_compute_dtype: asked } = config;
  if (!load_in_4bit) return () => productDtype;
  if (asked !== null && asked !== productDtype) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "bnb_4bit_compute_dtype, bf16 and fp16",
      reason: `products of this run are ${productDtype}, and 4-bit weights become what those take`,
    });
  }
  const quantised = quantisableWeights(base);
  const { bnb_4bit_quant_type: type } = config;
  const form = config.bnb_4bit_use_double_quant ? (`${type}-double` as const) : type;
  return ({ name }) => (quantised.has(name) ? form : productDtype);
}

/**
 * A space of weights that stay as they are. Those of 4 bits lie as [outputs, inputs] whatever the model stores, as
 * in bitsandbytes, whose blocks go along the inputs.
 */
export function frozenLayout(
  weights: BaseModel["weights"],
  form: WireForm | FormOf,
  facts: AdapterFacts,
): ParameterLayout {
  const formOf = typeof form === "string" ? () => form : form;
  const turns = (weight: BaseModel["weights"][number]): boolean =>
    isNf4(formOf(weight)) && isInputMajor(facts, weight.name.replace(/\.weight$/, ""));
  const laid = weights.map((weight) =>
    turns(weight) ? { ...weight, isTransposed: true as const } : weight,
  );
  return buildParameterLayout(laid, formOf);
}

/** About the weights of 4 bits in a frozen space, for a person. */
export function quantizationLines(frozen: ParameterLayout): readonly string[] {
  const forms = frozen.tensors.map(({ offset }) => regionAt(frozen, offset).dtype);
  const quantised = frozen.tensors.filter((_, i) => isNf4(forms[i] as WireForm));
  if (quantised.length === 0) return [];
  const scales = forms.includes("nf4-double") ? ", scales in 8 bits" : "";
  const gib = (wireSizeBytes(frozen) / 2 ** 30).toFixed(2);
  return [
    `QLoRA: ${withCommas(numElements(quantised))} of ${withCommas(numElements(frozen.tensors))} frozen weights are in 4 bits ` +
      `(nf4${scales}); all frozen weights take ${gib} GiB`,
  ];
}
