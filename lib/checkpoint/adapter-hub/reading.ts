import { existsSync } from "node:fs";
import { join } from "node:path";
import type { AddedTensors, AddedToModel } from "#lib/checkpoint/added-tensors";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { readFinite } from "#lib/checkpoint/finite-elements";
import { maxConfigBytes } from "#lib/checkpoint/limits";
import { openSafetensors, type SafetensorsFile } from "#lib/checkpoint/safetensors-file";
import { LockstepError } from "#lib/core/errors/index";
import {
  configFileName,
  headWeightsFileName,
  pickleFileName,
  weightsFileName,
} from "./file-names.js";
import { bottleneckPrefix } from "./names.js";

/** Fields of a BnConfig that change the arithmetic, with the values that are computed here. */
const onlyValues: Readonly<Record<string, readonly unknown[]>> = {
  adapter_residual_before_ln: [false],
  cross_adapter: [false],
  inv_adapter: [null],
  is_parallel: [false],
  ln_after: [false],
  ln_before: [false],
  original_ln_after: [true],
  phm_layer: [false],
  residual_before_ln: [true],
  scaling: [1],
  stochastic_depth: [0],
  use_gating: [false],
};

/** Fields that say where adapters are and how they came to be, or what another field turns on. */
const otherFields = new Set([
  ...["dropout", "init_weights", "init_weights_seed", "inv_adapter_reduction_factor", "leave_out"],
  ...["mh_adapter", "non_linearity", "original_ln_before", "output_adapter", "reduction_factor"],
  ...["factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity", "learn_phm"],
  ...["phm_bias", "phm_c_init", "phm_dim", "phm_init_range", "phm_rank"],
  ...["shared_W_phm", "shared_phm_rule"],
]);

/** The parts of a layer by the field that gives them adapters. */
const partFields = { attention: "mh_adapter", feedForward: "output_adapter" } as const;

/** Which adapters a configuration says that there are, by layer and part; undefined: it does not say. */
type IsChosen = (layer: number, part: string) => boolean | undefined;

/**
 * Opens adapters that AdapterHub's library, or we, saved.
 *
 * @throws E_ADAPTER_CONFIG, E_ADAPTER_UNSUPPORTED, E_ADAPTER_TENSOR, E_MODEL_DIRECTORY for a pickle
 */
export async function openBottleneckDirectory(directory: string): Promise<AddedTensors> {
  const configFile = join(directory, configFileName);
  const json = await readJsonFile(configFile, "adapter configuration", maxConfigBytes);
  const { name, config, model_class: modelClass } = isRecord(json) ? json : {};
  const invalid = (key: string, expected: string, value: unknown): never => {
    const got = JSON.stringify(value)?.slice(0, 80) ?? "nothing";
    throw new LockstepError("E_ADAPTER_CONFIG", { file: configFile, key, expected, got });
  };
  if (typeof name !== "string") return invalid("name", "text", name);
  if (!isRecord(config)) return invalid("config", "an object", config);
  for (const [key, allowed] of Object.entries(onlyValues)) {
    if (!(key in config) || allowed.includes(config[key])) continue;
    const what = `${key} ${JSON.stringify(config[key])}`.slice(0, 80);
    throw new LockstepError("E_ADAPTER_UNSUPPORTED", { file: configFile, what });
  }
  const { non_linearity: activation, original_ln_before: readsStream = false } = config;
  const { leave_out: leftOut = [] } = config;
  if (!Array.isArray(leftOut) || !leftOut.every(Number.isSafeInteger)) {
    return invalid("leave_out", "numbers of layers", leftOut);
  }
  const isChosen: IsChosen = (layer, part) => {
    const field = Object.hasOwn(partFields, part)
      ? partFields[part as keyof typeof partFields]
      : "";
    const hasPart = config[field];
    return typeof hasPart === "boolean" ? hasPart && !leftOut.includes(layer) : undefined;
  };
  const warnings = Object.keys(config)
    .filter((key) => !otherFields.has(key) && !Object.hasOwn(onlyValues, key))
    .map((key) => `${configFile}: the key ${key.slice(0, 80)} is unknown and has no effect`);
  if (typeof activation !== "string") return invalid("non_linearity", "text", activation);
  if (typeof readsStream !== "boolean") {
    return invalid("original_ln_before", "true or false", readsStream);
  }
  const path = (file: string): string => join(directory, file);
  if (!existsSync(path(weightsFileName)) && existsSync(path(pickleFileName))) {
    const problem = `its weights are a pickle (${pickleFileName}), which is not read because loading one can run code; save it again with use_safetensors=True, which writes ${weightsFileName}`;
    throw new LockstepError("E_MODEL_DIRECTORY", { directory, problem });
  }
  const opened: SafetensorsFile[] = [await openSafetensors(path(weightsFileName))];
  const close = async (): Promise<void> => {
    for (const file of opened) await file.close();
  };
  const [file] = opened as [SafetensorsFile];
  try {
    const head = existsSync(path(headWeightsFileName))
      ? await openSafetensors(path(headWeightsFileName))
      : undefined;
    if (head !== undefined) opened.push(head);
    const ofHead = (weight: string): SafetensorsFile => {
      if (head !== undefined) return head;
      throw new RangeError(`no head was saved, and so no ${weight}`);
    };
    const added = [...file.tensors.keys()].map((key) => ({
      name: key,
      shape: file.info(key).shape,
    }));
    return {
      directory,
      metadata: file.metadata,
      isClassifier: typeof modelClass === "string" && modelClass.endsWith("SequenceClassification"),
      jobFor: (base) => {
        const job = {
          prefixes: prefixesOf(directory, name, added, { ...base, isChosen }),
          readsStream,
          activation: activation.toLowerCase(),
        };
        return Object.assign({ kind: "adapter" }, job);
      },
      added,
      readAdded: (key) => readFinite(file, key),
      savedWeights: head === undefined ? [] : [...head.tensors.keys()],
      savedInfo: (weight) => ofHead(weight).info(weight),
      readSaved: (weight) => readFinite(ofHead(weight), weight),
      warnings,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * What the names of each layer's adapters begin with, by layer and part.
 *
 * @throws E_ADAPTER_TENSOR for a tensor that no layer of the base has a place for, or of another width, and where the
 *   file has not what the configuration says
 */
function prefixesOf(
  directory: string,
  name: string,
  added: AddedTensors["added"],
  { bottlenecks, numLayers, width, isChosen }: AddedToModel & { readonly isChosen: IsChosen },
): Readonly<Record<string, string>> {
  const shapes = new Map(added.map((tensor) => [tensor.name, tensor.shape]));
  const prefixes: Record<string, string> = {};
  const expected = new Set<string>();
  const fail = (tensor: string, problem: string): never => {
    throw new LockstepError("E_ADAPTER_TENSOR", { directory, tensor, problem });
  };
  for (const [part, place] of Object.entries<string>(bottlenecks ?? {})) {
    for (let layer = 0; layer < numLayers; layer++) {
      const prefix = bottleneckPrefix(place, layer, name);
      const down = `${prefix}.adapter_down.0.weight`;
      const narrow = shapes.get(down)?.[0];
      const wanted = isChosen(layer, part);
      if (wanted === true && narrow === undefined) {
        fail(down, "is not in the file, and the configuration has an adapter there");
      }
      if (wanted === false && narrow !== undefined) {
        fail(down, "is in the file, and the configuration has no adapter there");
      }
      if (narrow === undefined) continue;
      prefixes[`${layer}.${part}`] = prefix;
      for (const [tensor, shape] of [
        ["adapter_down.0.weight", [narrow, width]],
        ["adapter_down.0.bias", [narrow]],
        ["adapter_up.weight", [width, narrow]],
        ["adapter_up.bias", [width]],
      ] as const) {
        const key = `${prefix}.${tensor}`;
        expected.add(key);
        const got = shapes.get(key);
        if (got?.join() === shape.join()) continue;
        fail(
          key,
          `is [${got?.join(", ") ?? "missing"}], and the base model wants [${shape.join(", ")}]`,
        );
      }
    }
  }
  const stranger = added.find((tensor) => !expected.has(tensor.name));
  if (stranger !== undefined) fail(stranger.name, "has no place in a layer of the base model");
  return prefixes;
}
