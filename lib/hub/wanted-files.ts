import { maxConfigBytes, maxShardsPerModel, maxWeightsIndexBytes } from "#lib/checkpoint/limits";
import { isRecord } from "#lib/checkpoint/file-reader";

export const weightsFile = "model.safetensors";
export const weightsIndexFile = "model.safetensors.index.json";
export const adapterConfigFile = "adapter_config.json";
export const adapterWeightsFile = "adapter_model.safetensors";
export const configFile = "config.json";
export const tokenizerFile = "tokenizer.json";

/** A vocabulary of 256,000 tokens takes 35 MB as tokenizer.json. */
const maxTokenizerBytes = 512 << 20;
/** One file of weights; the largest published shards have some 50 GB. */
const maxWeightsBytes = 2 ** 40;

/** Files beside the weights, with the most bytes that each may have. */
const smallFiles: Readonly<Record<string, number>> = {
  "generation_config.json": maxConfigBytes,
  // Class names of a LoRA classifier.
  "classifier_config.json": maxConfigBytes,
  [tokenizerFile]: maxTokenizerBytes,
  "tokenizer_config.json": maxConfigBytes,
  "special_tokens_map.json": maxConfigBytes,
  "added_tokens.json": maxConfigBytes,
  "chat_template.jinja": maxConfigBytes,
  "chat_template.json": maxConfigBytes,
  "vocab.json": maxTokenizerBytes,
  "vocab.txt": maxTokenizerBytes,
  "merges.txt": maxTokenizerBytes,
  "tokenizer.model": maxTokenizerBytes,
  "spiece.model": maxTokenizerBytes,
  "sentencepiece.bpe.model": maxTokenizerBytes,
};

/** Where a model keeps chat templates beside the default one, a file for each. */
export const templatesFolder = "additional_chat_templates";

/** Whether a file is one of those. */
export const isNamedTemplate = (name: string): boolean =>
  name.startsWith(`${templatesFolder}/`) &&
  /^[^/]+\.jinja$/.test(name.slice(templatesFolder.length + 1));

/** Every name, weights and shards excepted. */
export const smallFileNames: readonly string[] = [
  ...Object.keys(smallFiles),
  configFile,
  adapterConfigFile,
];

/** The most bytes that a file may have. */
export function maxBytesOf(name: string): number {
  if (name === weightsIndexFile) return maxWeightsIndexBytes;
  if (name.endsWith(".safetensors")) return maxWeightsBytes;
  return smallFiles[name] ?? maxConfigBytes;
}

/** A file's name in a repository that cannot lead out of its directory, by any system's rules. */
export function isSafeFileName(name: string): boolean {
  if (name === "" || name.length > 1024 || /[\0-\x1f\\]/.test(name)) return false;
  return name.split("/").every((part) => part !== "" && !/^\.{1,2}$|^[a-zA-Z]:/.test(part));
}

/**
 * The shards that an index names, in order.
 *
 * @returns a sentence's end that says what is wrong with it, otherwise
 */
export function shardsOf(index: unknown): readonly string[] | string {
  const weightMap = isRecord(index) ? index["weight_map"] : undefined;
  if (!isRecord(weightMap)) return "it has no weight_map";
  const names = [...new Set(Object.values(weightMap))];
  const wrong = names.find(
    (name) =>
      typeof name !== "string" || !isSafeFileName(name) || !/^[^/]+\.safetensors$/.test(name),
  );
  if (wrong !== undefined)
    return `${JSON.stringify(wrong).slice(0, 200)} is not the name of a shard`;
  if (names.length === 0 || names.length > maxShardsPerModel) {
    return `it names ${names.length} shards, and 1 to ${maxShardsPerModel} are read`;
  }
  return (names as string[]).sort();
}

/** Files of a finished run that are pushed: what can be loaded, its history, and a person's own card. */
export function isPushed(name: string): boolean {
  return (
    smallFileNames.includes(name) ||
    isWeights(name) ||
    ["trainer_state.json", "README.md"].includes(name) ||
    /^(train|eval|all)_results\.json$/.test(name)
  );
}

/** Weights of any kind that a reader could take for the model's: an older push may have left some. */
export function isWeights(name: string): boolean {
  return (
    /^(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(name) ||
    /^(pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.bin(\.index\.json)?$/.test(name)
  );
}
