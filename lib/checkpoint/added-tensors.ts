import type { ParametersJob } from "#lib/core/job";
import type { AdapterFacts } from "./peft/target-modules.js";
import type { StoredTensor } from "./safetensors-header.js";

/** What stands beside a base model's weights and cannot be merged into them, in an open directory. */
export interface AddedTensors {
  readonly directory: string;
  /** What the weights file says of itself. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly isClassifier: boolean;
  /** What an engine has to know of it. */
  readonly jobFor: (base: AddedToModel) => ParametersJob;
  /** Tensors that are no weights of the model, by the names that the job's engine has for them. */
  readonly added: readonly { readonly name: string; readonly shape: readonly number[] }[];
  readonly readAdded: (name: string) => Promise<Float32Array>;
  /** Names, in the base model, of weights that are saved whole. */
  readonly savedWeights: readonly string[];
  readonly savedInfo: (weight: string) => StoredTensor;
  readonly readSaved: (weight: string) => Promise<Float32Array>;
  /** For a person. */
  readonly warnings: readonly string[];
  readonly close: () => Promise<void>;
}

/** What is asked of the model that something is added to. */
export interface AddedToModel {
  /** Rows of its table of tokens. */
  readonly vocabSize: number;
  /** Width of its hidden states. */
  readonly width: number;
  readonly numLayers: number;
  /** As AdapterFacts has it. */
  readonly bottlenecks: AdapterFacts["bottlenecks"];
}
