import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FloatDtype } from "#lib/core/dtype";
import type { OpenTarget } from "./file-target.js";
import { withJsonFields } from "./json-fields.js";
import { modelConfigFor, readModelConfigText } from "./model-config.js";
import { type SavedTensor, writeModelWeights } from "./written-weights.js";

/** One that can be read as an array. */
export interface ModelTensor extends SavedTensor {
  /** Its elements in float32, row-major; asked for once, when its turn comes. */
  readonly read: () => Float32Array | Promise<Float32Array>;
}

export interface ModelDirectoryOptions {
  /** Directory whose config, generation config and tokenizer files are copied. */
  readonly sourceDir: string;
  /** Directory whose tokenizer files are copied instead of the source's. */
  readonly tokenizerDir?: string;
  readonly tensors: Iterable<SavedTensor>;
  /** Who writes the weights. @default this thread, into local files */
  readonly openTarget?: OpenTarget | undefined;
  readonly dtype: FloatDtype;
  /** Fields of config.json that are other than the source's. */
  readonly configChanges?: Readonly<Record<string, unknown>>;
  /** Weights beyond this many bytes go into shards with an index. */
  readonly maxShardBytes?: number;
}

/** transformers' default `max_shard_size` is 50 GB in v5 and 5 GB in v4; shards of 5 GB load in both. */
const defaultMaxShardBytes = 5e9;

/** Files that a tokenizer may have. */
const tokenizerFiles = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "vocab.txt",
  "tokenizer.model",
] as const;

/**
 * Writes a Hugging Face model directory into the existing directory `directory`: the source's
 * config.json with the new dtype, what else is changed, and the rotary settings of both generations, its tokenizer and
 * generation files, and the weights. With `tie_word_embeddings: true` in the config, `lm_head.weight`
 * is left out, as transformers does.
 */
export async function writeModelDirectory(
  directory: string,
  options: ModelDirectoryOptions,
): Promise<void> {
  const { sourceDir, tokenizerDir = sourceDir, dtype, configChanges = {} } = options;
  const source = await readModelConfigText(sourceDir);
  const isTied = { ...source.config, ...configChanges }["tie_word_embeddings"] === true;
  const configText = withJsonFields(modelConfigFor(source, dtype), configChanges);
  await writeFile(join(directory, "config.json"), configText);
  await copyPresent(sourceDir, directory, ["generation_config.json"]);
  await copyTokenizer(tokenizerDir, directory);
  const tensors = [...options.tensors].filter(
    (tensor) => !(isTied && tensor.name === "lm_head.weight"),
  );
  const maxShardBytes = options.maxShardBytes ?? defaultMaxShardBytes;
  await writeModelWeights(directory, tensors, { ...options, maxShardBytes });
}

/** Copies a model's tokenizer, as the Trainer saves it beside an adapter. */
export async function copyTokenizer(sourceDir: string, directory: string): Promise<void> {
  await copyPresent(sourceDir, directory, tokenizerFiles);
  await copyAdditionalTemplates(sourceDir, directory);
}

/** Where transformers keeps chat templates beside the default one (`tool_use.jinja`). */
const templatesFolder = "additional_chat_templates";

/** Copies the named chat templates of a model that has some. */
export async function copyAdditionalTemplates(sourceDir: string, directory: string): Promise<void> {
  const from = join(sourceDir, templatesFolder);
  const names = await readdir(from).catch((error: unknown) => {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    throw error;
  });
  const templates = names.filter((name) => name.endsWith(".jinja"));
  if (templates.length === 0) return;
  await mkdir(join(directory, templatesFolder), { recursive: true });
  await copyPresent(from, join(directory, templatesFolder), templates);
}

/** Writes a model's config.json with some fields changed, under the name `file`. */
export async function writeChangedConfig(
  file: string,
  sourceDir: string,
  changes: Readonly<Record<string, unknown>>,
): Promise<void> {
  const source = await readModelConfigText(sourceDir);
  await writeFile(file, withJsonFields(modelConfigFor(source, undefined), changes));
}

async function copyPresent(
  sourceDir: string,
  directory: string,
  names: readonly string[],
): Promise<void> {
  for (const name of names) {
    try {
      await copyFile(join(sourceDir, name), join(directory, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
}
