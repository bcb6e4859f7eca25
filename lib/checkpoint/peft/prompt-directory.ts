import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AddedTensors } from "#lib/checkpoint/added-tensors";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { adapterMetadata } from "#lib/checkpoint/base-digest";
import { readFinite } from "#lib/checkpoint/finite-elements";
import { maxConfigBytes } from "#lib/checkpoint/limits";
import { encodeElements } from "#lib/checkpoint/elements";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import type { SavedTensor } from "#lib/checkpoint/written-weights";
import { formatPythonJson } from "#lib/checkpoint/python-json";
import { openSafetensors } from "#lib/checkpoint/safetensors-file";
import { storedDtypeOf } from "#lib/checkpoint/safetensors-header";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { adapterConfigFileName } from "./lora-config.js";

const weightsFileName = "adapter_model.safetensors";
/** The virtual tokens' vectors, [tokens, width]. */
const vectorsKey = "prompt_embeddings";
/** Weights that are saved whole lie below peft's wrapper, which for prompts is one deep. */
const keyPrefix = "base_model.";

/** Fields of peft's PromptTuningConfig (0.21); what of them is not read here changes no numbers of saved vectors. */
const knownKeys = new Set([
  ...["auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save"],
  ...["num_attention_heads", "num_layers", "num_transformer_submodules", "num_virtual_tokens"],
  ...["peft_type", "peft_version", "prompt_tuning_init", "prompt_tuning_init_text", "revision"],
  ...["task_type", "token_dim", "tokenizer_kwargs", "tokenizer_name_or_path"],
]);

/** The key of a weight that is saved whole beside virtual tokens. */
export const promptKey = (weight: string): string => `${keyPrefix}${weight}`;

/** peft's PromptTuningConfig under its own field names. */
interface PromptConfig {
  readonly task_type: string;
  readonly base_model_name_or_path: string;
  readonly revision: string | null;
  readonly num_virtual_tokens: number;
  readonly token_dim: number;
  readonly num_layers: number;
  readonly prompt_tuning_init: string;
  readonly prompt_tuning_init_text: string | null;
  readonly modules_to_save: readonly string[] | null;
}

/** Writes virtual tokens into the existing directory `directory`, as peft's save_pretrained. */
export async function writePromptDirectory(
  directory: string,
  {
    config,
    tensors,
    dtype,
    baseDigest,
    openTarget,
  }: {
    readonly config: PromptConfig;
    readonly tensors: readonly SavedTensor[];
    readonly dtype: FloatDtype;
    /** Of the base model's weights (see weightsSha256). */
    readonly baseDigest: string;
    readonly openTarget?: OpenTarget | undefined;
  },
): Promise<void> {
  const byKey = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  await writeSafetensors(
    join(directory, weightsFileName),
    tensors.map(({ name, shape }) => ({ name, shape, dtype: storedDtypeOf[dtype] })),
    async (key) => encodeElements(await (byKey.get(key) as SavedTensor).read(), dtype, key),
    { metadata: adapterMetadata(baseDigest), openTarget },
  );
  const json = {
    ...config,
    auto_mapping: null,
    inference_mode: true,
    // peft fills it in from the base model.
    num_attention_heads: null,
    num_transformer_submodules: 1,
    peft_type: "PROMPT_TUNING",
    // peft refuses TEXT without one, though it reads none of a saved prompt.
    tokenizer_name_or_path:
      config.prompt_tuning_init === "TEXT" ? config.base_model_name_or_path : null,
    tokenizer_kwargs: null,
  };
  await writeFile(
    join(directory, adapterConfigFileName),
    formatPythonJson(json, () => true),
  );
}

/**
 * Opens virtual tokens that peft, or we, saved.
 *
 * @throws E_ADAPTER_CONFIG, E_ADAPTER_UNSUPPORTED, E_ADAPTER_TENSOR
 */
export async function openPromptDirectory(directory: string): Promise<AddedTensors> {
  const configFile = join(directory, adapterConfigFileName);
  const json = await readJsonFile(configFile, "adapter configuration", maxConfigBytes);
  const config = isRecord(json) ? json : {};
  const submodules = config["num_transformer_submodules"] ?? 1;
  if (submodules !== 1) {
    const what = "num_transformer_submodules other than 1 (a decoder beside an encoder)";
    throw new LockstepError("E_ADAPTER_UNSUPPORTED", { file: configFile, what });
  }
  const count = config["num_virtual_tokens"];
  const file = await openSafetensors(join(directory, weightsFileName));
  try {
    const fail = (tensor: string, problem: string): never => {
      throw new LockstepError("E_ADAPTER_TENSOR", { directory, tensor, problem });
    };
    const keys = [...file.tensors.keys()];
    if (!keys.includes(vectorsKey)) fail(vectorsKey, "is not in the file");
    const stranger = keys.find((key) => key !== vectorsKey && !key.startsWith(keyPrefix));
    if (stranger !== undefined) fail(stranger, "is neither virtual tokens nor a saved weight");
    const { shape } = file.info(vectorsKey);
    const [numTokens = 0, width = 0] = shape;
    if (shape.length !== 2 || numTokens < 1 || (count !== undefined && count !== numTokens)) {
      fail(vectorsKey, `is [${shape.join(", ")}], and num_virtual_tokens is ${String(count)}`);
    }
    return {
      directory,
      metadata: file.metadata,
      isClassifier: config["task_type"] === "SEQ_CLS",
      jobFor: (base) => {
        if (base.width !== width) {
          fail(vectorsKey, `has a width of ${width}, and the base model one of ${base.width}`);
        }
        return { kind: "prompt", numVirtualTokens: numTokens, vocabSize: base.vocabSize };
      },
      added: [{ name: vectorsKey, shape }],
      readAdded: () => readFinite(file, vectorsKey),
      savedWeights: keys
        .filter((key) => key !== vectorsKey)
        .map((key) => key.slice(keyPrefix.length)),
      savedInfo: (weight) => file.info(promptKey(weight)),
      readSaved: (weight) => readFinite(file, promptKey(weight)),
      warnings: Object.keys(config)
        .filter((key) => !knownKeys.has(key))
        .map((key) => `${configFile}: the key ${key.slice(0, 80)} is unknown and has no effect`),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
