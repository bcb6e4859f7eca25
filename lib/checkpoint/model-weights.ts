import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { LockstepError } from "#lib/core/errors/index";
import type { FloatDtype } from "#lib/core/dtype";
import { isRecord, readJsonFile } from "./file-reader.js";
import { maxConfigBytes, maxShardsPerModel, maxWeightsIndexBytes } from "./limits.js";
import { type StoredTensor, storedDtypeOf } from "./safetensors-header.js";
import { type ElementSpan, openSafetensors, type SafetensorsFile } from "./safetensors-file.js";

export const weightsFileName = "model.safetensors";
export const weightsIndexFileName = "model.safetensors.index.json";

interface PlacedTensor {
  readonly file: SafetensorsFile;
  /** Its name in that file. */
  readonly stored: string;
}

/** A name for a stored weight, by `model_type` of config.json where there is one. */
type WeightNaming = (stored: string, modelType: string | undefined) => string;

/**
 * The weights of a Hugging Face model directory, in one file or in shards with an index. Buffers that are
 * no weights are left out.
 */
export class ModelWeights {
  readonly directory: string;
  readonly #placed: ReadonlyMap<string, PlacedTensor>;
  readonly #files: readonly SafetensorsFile[];

  private constructor(
    directory: string,
    placed: ReadonlyMap<string, PlacedTensor>,
    files: readonly SafetensorsFile[],
  ) {
    this.directory = directory;
    this.#placed = placed;
    this.#files = files;
  }

  /**
   * Opens every file and checks every header. `model.safetensors` wins over an index beside it.
   *
   * @param nameOf what weights are called, for files of earlier years; by default as they are stored
   */
  static async open(
    directory: string,
    nameOf: WeightNaming = (stored) => stored,
  ): Promise<ModelWeights> {
    const single = join(directory, weightsFileName);
    if (existsSync(single)) {
      const file = await openSafetensors(single);
      const fileOf = new Map([...file.tensors.keys()].map((name) => [name, file]));
      return ModelWeights.#named(directory, nameOf, fileOf, [file]);
    }
    const index = join(directory, weightsIndexFileName);
    if (existsSync(index)) return ModelWeights.#openSharded(directory, nameOf, index);
    if (!existsSync(directory)) {
      throw new LockstepError("E_FILE_NOT_FOUND", { file: directory, what: "model directory" });
    }
    const problem =
      existsSync(join(directory, "pytorch_model.bin")) ||
      existsSync(join(directory, "pytorch_model.bin.index.json"))
        ? `its weights are a pickle (pytorch_model.bin), which is not read because loading one can run code; convert it with \`python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained('DIR').save_pretrained('DIR')"\` (AutoModelForSequenceClassification for a classifier), which writes model.safetensors`
        : `it has neither ${weightsFileName} nor ${weightsIndexFileName}`;
    throw new LockstepError("E_MODEL_DIRECTORY", { directory, problem });
  }

  static async #named(
    directory: string,
    nameOf: WeightNaming,
    fileOf: ReadonlyMap<string, SafetensorsFile>,
    files: readonly SafetensorsFile[],
  ): Promise<ModelWeights> {
    try {
      const modelType = await readModelType(directory);
      const placed = new Map<string, PlacedTensor>();
      for (const [stored, file] of fileOf) {
        if (isDerivedTensor(stored)) continue;
        const name = nameOf(stored, modelType);
        if (placed.has(name)) {
          throw new LockstepError("E_DUPLICATE_TENSOR", { where: directory, tensor: name });
        }
        placed.set(name, { file, stored });
      }
      return new ModelWeights(directory, placed, files);
    } catch (error) {
      for (const file of files) await file.close();
      throw error;
    }
  }

  static async #openSharded(
    directory: string,
    nameOf: WeightNaming,
    index: string,
  ): Promise<ModelWeights> {
    const weightMap = await readWeightMap(index);
    const files = new Map<string, SafetensorsFile>();
    const fileOf = new Map<string, SafetensorsFile>();
    try {
      for (const [name, shard] of weightMap) {
        let file = files.get(shard);
        if (file === undefined) {
          file = await openSafetensors(join(directory, shard));
          files.set(shard, file);
        }
        if (!file.tensors.has(name)) {
          const problem = `it says that tensor "${name}" lies in ${shard}, which does not hold it`;
          throw new LockstepError("E_WEIGHTS_INDEX", { file: index, problem });
        }
        fileOf.set(name, file);
      }
    } catch (error) {
      for (const file of files.values()) await file.close();
      throw error;
    }
    return ModelWeights.#named(directory, nameOf, fileOf, [...files.values()]);
  }

  /** All tensor names, sorted. */
  names(): string[] {
    return [...this.#placed.keys()].sort();
  }

  has(name: string): boolean {
    return this.#placed.has(name);
  }

  /** What its file calls a tensor. @throws E_TENSOR_MISSING */
  storedAs(name: string): string {
    return this.#place(name).stored;
  }

  info(name: string): StoredTensor {
    const { file, stored } = this.#place(name);
    const tensor = file.info(stored);
    return stored === name ? tensor : { ...tensor, name };
  }

  /** The floating-point type in which most elements are stored; float32 where there are none. */
  dtype(): FloatDtype {
    const counts = new Map<FloatDtype, number>();
    for (const name of this.#placed.keys()) {
      const { dtype, numElements } = this.info(name);
      for (const [float, storedDtype] of Object.entries(storedDtypeOf) as [FloatDtype, string][]) {
        if (storedDtype === dtype) counts.set(float, (counts.get(float) ?? 0) + numElements);
      }
    }
    return [...counts].sort(([, a], [, b]) => b - a)[0]?.[0] ?? "float32";
  }

  /** See SafetensorsFile.readFloat32: F32, BF16 or F16 in, float32 out, optionally only a span. */
  readFloat32(name: string, into?: Float32Array, span?: ElementSpan): Promise<Float32Array> {
    const { file, stored } = this.#place(name);
    return file.readFloat32(stored, into, span);
  }

  /** Fills `into` with a tensor's bytes as stored, from byte `offset` of it on. */
  readBytes(name: string, into: Uint8Array, offset: number): Promise<void> {
    const { file, stored } = this.#place(name);
    return file.readBytesInto(stored, into, offset);
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
  }

  #place(name: string): PlacedTensor {
    const place = this.#placed.get(name);
    if (place !== undefined) return place;
    const nearest = nearestName(name, this.#placed.keys());
    throw new LockstepError("E_TENSOR_MISSING", {
      where: this.directory,
      tensor: name,
      ...(nearest === undefined ? {} : { nearest }),
    });
  }
}

/** `model_type` of config.json; undefined for weights without one. */
async function readModelType(directory: string): Promise<string | undefined> {
  const file = join(directory, "config.json");
  if (!existsSync(file)) return undefined;
  const config = await readJsonFile(file, "model configuration", maxConfigBytes);
  const modelType = isRecord(config) ? config["model_type"] : undefined;
  return typeof modelType === "string" ? modelType : undefined;
}

async function readWeightMap(index: string): Promise<readonly [string, string][]> {
  const fail = (problem: string): never => {
    throw new LockstepError("E_WEIGHTS_INDEX", { file: index, problem });
  };
  const parsed = await readJsonFile(index, "weight index", maxWeightsIndexBytes);
  if (!isRecord(parsed) || !isRecord(parsed["weight_map"])) return fail("it has no weight_map");
  const entries = Object.entries(parsed["weight_map"]);
  if (entries.length === 0) fail("its weight_map is empty");
  const shards = new Set<string>();
  for (const [name, shard] of entries) {
    if (typeof shard !== "string") return fail(`the shard of "${name}" is not a file name`);
    // A path could reach outside the model directory.
    if (shard !== basename(shard) || shard.includes("\\") || !shard.endsWith(".safetensors")) {
      fail(`"${shard.slice(0, 80)}" is not the name of a .safetensors file beside it`);
    }
    shards.add(shard);
  }
  if (shards.size > maxShardsPerModel) {
    fail(`it names ${shards.size} shards; at most ${maxShardsPerModel} are accepted`);
  }
  return entries as [string, string][];
}

/** The name that shares the longest suffix: a missing or extra prefix is the usual difference. */
function nearestName(wanted: string, names: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestLength = 6;
  for (const name of names) {
    let length = 0;
    while (length < wanted.length && wanted.at(-1 - length) === name.at(-1 - length)) length++;
    if (length > bestLength) {
      best = name;
      bestLength = length;
    }
  }
  return best;
}
