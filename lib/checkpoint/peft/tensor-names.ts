/** What a module's adapter is made of: A [r, inputs], B [outputs, r], and with DoRA the magnitudes [outputs]. */
export type LoraPart = "A" | "B" | "magnitude";

/** Every key of an adapter's file lies below peft's wrapper and the wrapped model. */
export const keyPrefix = "base_model.model.";

const magnitudeSuffix = "lora_magnitude_vector";

/** The name of a part of a module's adapter, beside the names of the model's weights. */
export const loraTensorName = (path: string, part: LoraPart): string =>
  part === "magnitude" ? `${path}.${magnitudeSuffix}` : `${path}.lora_${part}.weight`;

/** The module and the part that a tensor is of; undefined for a weight of the model. */
export function loraPartOf(
  name: string,
): { readonly path: string; readonly part: LoraPart } | undefined {
  const [, path, matrix] = /^(.+)\.lora_([AB])\.weight$/.exec(name) ?? [];
  if (path !== undefined) return { path, part: matrix as LoraPart };
  const suffix = `.${magnitudeSuffix}`;
  if (!name.endsWith(suffix) || name === suffix) return undefined;
  return { path: name.slice(0, -suffix.length), part: "magnitude" };
}

/** The key of a tensor in an adapter's file: of a part of an adapter, or of a weight that is saved whole. */
export const adapterKey = (name: string): string => `${keyPrefix}${name}`;

/** The key of a part of a module's adapter; matrices lie the same way for Conv1D modules. */
export const loraKey = (path: string, part: LoraPart): string =>
  adapterKey(loraTensorName(path, part));

/** The module of a weight or bias. */
export const moduleOf = (name: string): string => name.replace(/\.(weight|bias)$/, "");

/** The base model's name of a weight that is saved beside LoRA: the bias of an adapted module lies within its wrapper. */
export const savedWeightOf = (name: string): string => name.replace(/\.base_layer\.bias$/, ".bias");
