import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { encodeElements } from "#lib/checkpoint/elements";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import type { SavedTensor } from "#lib/checkpoint/written-weights";
import {
  type ElementSpan,
  openSafetensors,
  type SafetensorsFile,
} from "#lib/checkpoint/safetensors-file";
import { adapterMetadata, isBoundToBase } from "#lib/checkpoint/base-digest";
import { readFinite } from "#lib/checkpoint/finite-elements";
import { type StoredTensor, storedDtypeOf } from "#lib/checkpoint/safetensors-header";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import { readLoraConfig } from "./adapter-files.js";
import { adapterConfigFileName, formatLoraConfig, type LoraConfig } from "./lora-config.js";
import {
  adaptedModules,
  type BaseModel,
  completeLoraConfig,
  isSavedWhole,
  linearModules,
  rankOf,
} from "./target-modules.js";
import {
  adapterKey,
  keyPrefix,
  loraKey,
  type LoraPart,
  loraPartOf,
  moduleOf,
  savedWeightOf,
} from "./tensor-names.js";
import { tiedHeadPath } from "./tied-modules.js";

const adapterWeightsFileName = "adapter_model.safetensors";
const pickleFileName = "adapter_model.bin";

/** A LoRA module of an adapter file. */
interface AdapterModule {
  /** Path in the base model. */
  readonly path: string;
  readonly rank: number;
  readonly numInputs: number;
  readonly numOutputs: number;
}

/** An open adapter directory as peft writes it; tensors are read on demand. */
export class AdapterDirectory {
  readonly directory: string;
  readonly config: LoraConfig;
  /** About keys of the configuration that nobody knows. */
  readonly warnings: readonly string[];
  /** By path. */
  readonly modules: readonly AdapterModule[];
  /** Names, in the base model, of weights that are saved whole: `modules_to_save` and biases. */
  readonly savedWeights: readonly string[];
  /** Keys of the saved weights in the file. */
  readonly #savedKeys: ReadonlyMap<string, string>;
  readonly #file: SafetensorsFile;

  private constructor(parts: {
    directory: string;
    config: LoraConfig;
    warnings: readonly string[];
    modules: readonly AdapterModule[];
    savedKeys: ReadonlyMap<string, string>;
    file: SafetensorsFile;
  }) {
    this.directory = parts.directory;
    this.config = parts.config;
    this.warnings = parts.warnings;
    this.modules = parts.modules;
    this.savedWeights = [...parts.savedKeys.keys()].sort();
    this.#savedKeys = parts.savedKeys;
    this.#file = parts.file;
  }

  /**
   * @throws E_ADAPTER_CONFIG, E_ADAPTER_UNSUPPORTED, E_ADAPTER_TENSOR where a module lacks a part,
   *   E_MODEL_DIRECTORY for a pickle
   */
  static async open(directory: string): Promise<AdapterDirectory> {
    const { config, warnings } = await readLoraConfig(directory);
    const weightsFile = join(directory, adapterWeightsFileName);
    if (!existsSync(weightsFile) && existsSync(join(directory, pickleFileName))) {
      const problem = `its weights are a pickle (${pickleFileName}), which is not read because loading one can run code; load it with peft and save it again, which writes ${adapterWeightsFileName}`;
      throw new LockstepError("E_MODEL_DIRECTORY", { directory, problem });
    }
    const file = await openSafetensors(weightsFile);
    try {
      const sorted = sortTensors(directory, config, file);
      return new AdapterDirectory({ directory, config, warnings, ...sorted, file });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Checks every module and saved weight against the base model: sizes that differ, as after an added
   * token, are named with both values. The file has what its configuration chooses of the model, no less and no
   * more: peft would go without what is missing, and leave out the rest.
   *
   * @throws E_ADAPTER_TENSOR, E_ADAPTER_TARGET
   */
  checkAgainst(model: BaseModel): void {
    const linear = new Map(linearModules(model).map((module) => [module.path, module]));
    for (const { path, numInputs, numOutputs } of this.modules) {
      const base = linear.get(path);
      if (base === undefined) this.#fail(path, "is no linear module of the base model");
      else if (base.numInputs !== numInputs || base.numOutputs !== numOutputs) {
        const problem = `maps ${numInputs} to ${numOutputs} features, in the base model ${base.numInputs} to ${base.numOutputs}`;
        this.#fail(path, problem);
      }
    }
    const shapes = new Map(model.weights.map(({ name, shape }) => [name, shape]));
    for (const name of this.savedWeights) {
      const base = shapes.get(name);
      const { shape } = this.savedInfo(name);
      if (base === undefined) this.#fail(name, "is no weight of the base model");
      else if (base.join() !== shape.join()) {
        this.#fail(name, `has shape [${shape.join(", ")}], in the base model [${base.join(", ")}]`);
      }
    }
    this.#checkChosen(model);
  }

  #checkChosen(model: BaseModel): void {
    const complete = completeLoraConfig(this.config, model);
    const chosen = adaptedModules(complete, model).map(({ path }) => path);
    const stored = new Set(this.modules.map(({ path }) => path));
    const missing = chosen.find((path) => !stored.delete(path));
    if (missing !== undefined) {
      this.#fail(missing, "is chosen by adapter_config.json, and the file has no matrices for it");
    }
    const [more] = stored;
    if (more !== undefined) {
      this.#fail(more, "has matrices in the file, and adapter_config.json does not choose it");
    }
    const saved = new Set(this.savedWeights);
    const { modules_to_save } = this.config;
    const unsaved = model.weights.find(
      ({ name }) => isSavedWhole(modules_to_save, name) && !saved.has(name),
    );
    if (unsaved === undefined) return;
    this.#fail(unsaved.name, "belongs to modules_to_save, and the file does not have it");
  }

  /** A [rank, inputs], B [outputs, rank] or the magnitudes [outputs] of a module, float32. */
  readPart(path: string, part: LoraPart, into?: Float32Array): Promise<Float32Array> {
    return readFinite(this.#file, loraKey(path, part), into);
  }

  /** Whether the file tells which base model it belongs to. */
  get isBound(): boolean {
    return isBoundToBase(this.metadata);
  }

  /** What the weights file says of itself. */
  get metadata(): Readonly<Record<string, string>> {
    return this.#file.metadata;
  }

  /** SHA-256 of its configuration and its tensors, by content. */
  async digest(): Promise<string> {
    const file = this.#file;
    const tensors = await weightsSha256(
      {
        has: (name) => file.tensors.has(name),
        info: (name) => file.info(name),
        readBytes: async (...part) => file.readBytesInto(...part),
      },
      [...file.tensors.values()],
    );
    return createHash("sha256").update(formatLoraConfig(this.config)).update(tensors).digest("hex");
  }

  savedInfo(weight: string): StoredTensor {
    return this.#file.info(this.#keyOf(weight));
  }

  /** A weight that is saved whole, or any other tensor by its name (loraTensorName); float32. */
  readSaved(weight: string, into?: Float32Array, span?: ElementSpan): Promise<Float32Array> {
    return readFinite(this.#file, this.#keyOf(weight), into, span);
  }

  #keyOf(name: string): string {
    return this.#savedKeys.get(name) ?? adapterKey(name);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #fail(tensor: string, problem: string): never {
    throw new LockstepError("E_ADAPTER_TENSOR", { directory: this.directory, tensor, problem });
  }
}

/** Puts the parts of every module together, and lists what is saved whole. */
function sortTensors(directory: string, config: LoraConfig, file: SafetensorsFile) {
  const fail = (tensor: string, problem: string): never => {
    throw new LockstepError("E_ADAPTER_TENSOR", { directory, tensor, problem });
  };
  const parts = new Map<string, Partial<Record<LoraPart, StoredTensor>>>();
  const savedKeys = new Map<string, string>();
  for (const [key, tensor] of file.tensors) {
    if (!key.startsWith(keyPrefix)) fail(key, `does not begin with ${keyPrefix}`);
    const name = key.slice(keyPrefix.length);
    const found = loraPartOf(name);
    if (found !== undefined) {
      parts.set(found.path, { ...parts.get(found.path), [found.part]: tensor });
    } else if (/\.lora_/.test(name)) {
      const what = `the tensor ${key.slice(0, 120)}, which LoRA on linear modules does not have,`;
      throw new LockstepError("E_ADAPTER_UNSUPPORTED", { file: file.file, what });
    } else {
      const weight = savedWeightOf(name);
      if (savedKeys.has(weight)) fail(weight, "is there twice, once within base_layer");
      savedKeys.set(weight, key);
    }
  }
  const modules = [...parts].map(([path, { A, B, magnitude }]): AdapterModule => {
    if (A === undefined || B === undefined) {
      const missing = [
        ...(A === undefined ? ["lora_A"] : []),
        ...(B === undefined ? ["lora_B"] : []),
      ];
      return fail(path, `lacks ${missing.join(" and ")} beside what it has of an adapter`);
    }
    const rank = rankOf(config, path);
    if (
      A.shape.length !== 2 ||
      B.shape.length !== 2 ||
      A.shape[0] !== rank ||
      B.shape[1] !== rank
    ) {
      const shapes = `[${A.shape.join(", ")}] and [${B.shape.join(", ")}]`;
      return fail(path, `has matrices ${shapes}, which are not of rank ${rank}`);
    }
    const [numOutputs, numInputs] = [B.shape[0] as number, A.shape[1] as number];
    if (config.use_dora !== (magnitude !== undefined)) {
      const has = config.use_dora ? "has no" : "has a";
      return fail(path, `${has} lora_magnitude_vector, and use_dora is ${config.use_dora}`);
    }
    if (magnitude !== undefined && magnitude.shape.join() !== String(numOutputs)) {
      const shape = `[${magnitude.shape.join(", ")}]`;
      return fail(path, `has magnitudes of shape ${shape} for ${numOutputs} outputs`);
    }
    return { path, rank, numInputs, numOutputs };
  });
  if (modules.length === 0) fail("the weights file", "holds no lora_A and lora_B");
  modules.sort((a, b) => (a.path < b.path ? -1 : 1));
  // Beside a table that is trained as one with the head, the file holds the head too.
  const isTiedHead = (name: string): boolean =>
    config.ensure_weight_tying && name === `${tiedHeadPath}.weight`;
  const isBias = (name: string): boolean =>
    name.endsWith(".bias") &&
    (config.bias === "all" || (config.bias === "lora_only" && parts.has(moduleOf(name))));
  const isExpected = (name: string): boolean =>
    isBias(name) || isSavedWhole(config.modules_to_save, name) || isTiedHead(name);
  for (const name of savedKeys.keys()) {
    if (!isExpected(name)) fail(name, "belongs neither to LoRA nor to modules_to_save");
  }
  return { modules, savedKeys };
}

interface AdapterContent {
  /** Complete: with its targets (see completeLoraConfig). */
  readonly config: LoraConfig;
  /** Keys of adapterKey; elements float32, asked for once. */
  readonly tensors: readonly SavedTensor[];
  readonly dtype: FloatDtype;
  /** Of the base model's weights, kept in the weights file (see weightsSha256). */
  readonly baseDigest?: string;
  readonly openTarget?: OpenTarget | undefined;
}

/**
 * Writes an adapter into the existing directory `directory`: configuration, weights and a model card,
 * as peft's save_pretrained. One tensor is in memory at a time.
 */
export async function writeAdapterDirectory(
  directory: string,
  { config, tensors, dtype, baseDigest, openTarget }: AdapterContent,
): Promise<void> {
  const byKey = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  await writeSafetensors(
    join(directory, adapterWeightsFileName),
    tensors.map(({ name, shape }) => ({ name, shape, dtype: storedDtypeOf[dtype] })),
    async (key) => encodeElements(await (byKey.get(key) as SavedTensor).read(), dtype, key),
    {
      openTarget,
      ...(baseDigest === undefined ? {} : { metadata: adapterMetadata(baseDigest) }),
    },
  );
  // An adapter on disk is one to be used: peft starts training only when told so.
  const text = formatLoraConfig({ ...config, inference_mode: true });
  await writeFile(join(directory, adapterConfigFileName), text);
  await writeFile(join(directory, "README.md"), modelCard(config));
}

/** The front matter by which the hub and peft's readers find the base model; the hub takes no path there. */
function modelCard(config: LoraConfig): string {
  const named = config.base_model_name_or_path;
  const isId = named !== null && /^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/.test(named);
  const hubId = isId ? named : null;
  return [
    "---",
    ...(hubId === null ? [] : [`base_model: ${JSON.stringify(hubId)}`]),
    "library_name: peft",
    "tags:",
    ...(hubId === null ? [] : [`- ${JSON.stringify(`base_model:adapter:${hubId}`)}`]),
    ...(config.use_dora ? ["- dora"] : []),
    "- lora",
    "- lockstep",
    "---",
    "",
    `A ${config.use_dora ? "DoRA" : "LoRA"} adapter of rank ${config.r}${hubId === null ? "" : ` for ${hubId}`}, trained with Lockstep.`,
    "",
  ].join("\n");
}
