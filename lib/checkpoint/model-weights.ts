import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { isRecord, readJsonFile } from "./file-reader.js";
import { maxShardsPerModel, maxWeightsIndexBytes } from "./limits.js";
import type { StoredTensor } from "./safetensors-header.js";
import { type ElementSpan, openSafetensors, type SafetensorsFile } from "./safetensors-file.js";

export const weightsFileName = "model.safetensors";
export const weightsIndexFileName = "model.safetensors.index.json";

/** The weights of a Hugging Face model directory, in one file or in shards with an index. */
export class ModelWeights {
  readonly directory: string;
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;
  readonly #files: readonly SafetensorsFile[];

  private constructor(
    directory: string,
    fileOf: ReadonlyMap<string, SafetensorsFile>,
    files: readonly SafetensorsFile[],
  ) {
    this.directory = directory;
    this.#fileOf = fileOf;
    this.#files = files;
  }

  /** Opens every file and checks every header. `model.safetensors` wins over an index beside it. */
  static async open(directory: string): Promise<ModelWeights> {
    const single = join(directory, weightsFileName);
    if (existsSync(single)) {
      const file = await openSafetensors(single);
      const fileOf = new Map([...file.tensors.keys()].map((name) => [name, file]));
      return new ModelWeights(directory, fileOf, [file]);
    }
    const index = join(directory, weightsIndexFileName);
    if (existsSync(index)) return ModelWeights.#openSharded(directory, index);
    if (!existsSync(directory)) {
      throw new LockstepError("E_FILE_NOT_FOUND", { file: directory, what: "model directory" });
    }
    const problem = existsSync(join(directory, "pytorch_model.bin"))
      ? "its weights are a pickle (pytorch_model.bin), which is not read because loading one can run code"
      : `it has neither ${weightsFileName} nor ${weightsIndexFileName}`;
    throw new LockstepError("E_MODEL_DIRECTORY", { directory, problem });
  }

  static async #openSharded(directory: string, index: string): Promise<ModelWeights> {
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
    return new ModelWeights(directory, fileOf, [...files.values()]);
  }

  /** All tensor names, sorted. */
  names(): string[] {
    return [...this.#fileOf.keys()].sort();
  }

  has(name: string): boolean {
    return this.#fileOf.has(name);
  }

  info(name: string): StoredTensor {
    return this.#file(name).info(name);
  }

  /** See SafetensorsFile.readFloat32: F32, BF16 or F16 in, float32 out, optionally only a span. */
  readFloat32(name: string, into?: Float32Array, span?: ElementSpan): Promise<Float32Array> {
    return this.#file(name).readFloat32(name, into, span);
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file !== undefined) return file;
    const nearest = nearestName(name, this.#fileOf.keys());
    throw new LockstepError("E_TENSOR_MISSING", {
      where: this.directory,
      tensor: name,
      ...(nearest === undefined ? {} : { nearest }),
    });
  }
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
