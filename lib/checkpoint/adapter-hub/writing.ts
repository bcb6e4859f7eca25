import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { adapterMetadata } from "#lib/checkpoint/base-digest";
import { encodeElements } from "#lib/checkpoint/elements";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import type { SavedTensor } from "#lib/checkpoint/written-weights";
import { formatPythonJson } from "#lib/checkpoint/python-json";
import { storedDtypeOf } from "#lib/checkpoint/safetensors-header";
import { writeSafetensors } from "#lib/checkpoint/safetensors-writer";
import type { FloatDtype } from "#lib/core/dtype";
import {
  configFileName,
  headConfigFileName,
  headWeightsFileName,
  weightsFileName,
} from "./file-names.js";
import { bottleneckName } from "./names.js";

/** What differs between adapters here, under the library's field names. */
export interface BottleneckConfig {
  readonly mh_adapter: boolean;
  readonly original_ln_before: boolean;
  readonly non_linearity: string;
  readonly reduction_factor: number;
}

/** The library's other fields of a BnConfig, at their defaults. */
const otherFields = {
  adapter_residual_before_ln: false,
  cross_adapter: false,
  dropout: 0,
  init_weights: "bert",
  inv_adapter: null,
  inv_adapter_reduction_factor: null,
  is_parallel: false,
  leave_out: [],
  ln_after: false,
  ln_before: false,
  original_ln_after: true,
  output_adapter: true,
  phm_layer: false,
  residual_before_ln: true,
  scaling: 1,
  stochastic_depth: 0,
  use_gating: false,
};

/** Numbers that Python's library has as floats: it takes a scaling that is an int for a name. */
const floatKeys = new Set(["dropout", "scaling", "stochastic_depth"]);

interface BottleneckContent {
  readonly config: BottleneckConfig;
  /** About the base model, in both files of configuration. */
  readonly base: {
    readonly hidden_size: number;
    readonly model_class: string;
    readonly model_name: string;
    readonly model_type: string;
  };
  /** Numbers of a classifier's classes. */
  readonly labels: Readonly<Record<string, number>>;
  readonly tensors: readonly SavedTensor[];
  /** Weights of the model that are saved whole; without any there are no files of a head. */
  readonly head: readonly SavedTensor[];
  readonly dtype: FloatDtype;
  /** Of the base model's weights (see weightsSha256). */
  readonly baseDigest: string;
  readonly openTarget?: OpenTarget | undefined;
}

/** Writes adapters into the existing directory `directory`, as the library's save_adapter. */
export async function writeBottleneckDirectory(
  directory: string,
  { config, base, labels, tensors, head, dtype, baseDigest, openTarget }: BottleneckContent,
): Promise<void> {
  const write = async (name: string, values: readonly SavedTensor[]): Promise<void> => {
    const byKey = new Map(values.map((tensor) => [tensor.name, tensor]));
    await writeSafetensors(
      join(directory, name),
      values.map((each) => ({ name: each.name, shape: each.shape, dtype: storedDtypeOf[dtype] })),
      async (key) => encodeElements(await (byKey.get(key) as SavedTensor).read(), dtype, key),
      { metadata: adapterMetadata(baseDigest), openTarget },
    );
  };
  const writeJson = (name: string, json: object): Promise<void> =>
    writeFile(
      join(directory, name),
      formatPythonJson({ ...base, ...json, version }, (key) => !floatKeys.has(key)),
    );
  await write(weightsFileName, tensors);
  await writeJson(configFileName, { config: { ...otherFields, ...config }, name: bottleneckName });
  if (head.length === 0) return;
  await write(headWeightsFileName, head);
  const numLabels = Object.keys(labels).length;
  await writeJson(headConfigFileName, {
    ...{ config: null, name: null, label2id: labels },
    ...(numLabels === 0 ? {} : { num_labels: numLabels }),
  });
}

/** The release whose layout this is. */
const version = "adapters.1.3.0";
