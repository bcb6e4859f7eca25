/**
 * The package's public face: what the commands do, a program can do. Nothing here prints, ends the process
 * or listens to its signals. docs/library.md shows it in use.
 */
export {
  type ElementSpan,
  type ModelWeights,
  type ModelTensor,
  openSafetensors,
  OptimizerStateReader,
  readTrainerState,
  SafetensorsFile,
  type StoredTensor,
  type TensorEntry,
  type TrainerState,
  writeModelDirectory,
  type ModelDirectoryOptions,
  writeSafetensors,
} from "#lib/checkpoint/index";
export type { LoadedConfig, ResolvedConfig } from "#lib/config/index";
export { type ErrorCode, isLockstepError, LockstepError } from "#lib/core/errors/index";
export type { LockstepEvent } from "#lib/core/events";
export { type ChatMessage, loadTokenizer, type Tokenizer } from "#lib/data/index";
export type { ClassScore } from "#lib/evaluation/classify/class-score";
export type { Continuation } from "#lib/evaluation/generate/continuation";
export type { GenerationOptions } from "#lib/evaluation/generate/options";
export type { Pooling } from "#lib/evaluation/embed/pooling";
export { type ClusterRun, startCoordinator } from "./cluster-run.js";
export { startCluster } from "./local-cluster.js";
export { type GivenKeys, loadConfig, type LoadOptions } from "./load-config.js";
export { prepareLocal as prepareRun, startLocal as trainLocal } from "./local-run.js";
export { findModelDirectory } from "./model-directory.js";
export { openModelWeights } from "./model-weights.js";
export type { PreparedRun } from "./prepared-run.js";
export type { Run, RunOptions, RunResult } from "./run-handle.js";
export { TextClassifier } from "./text-classifier.js";
export { type EmbedderOptions, TextEmbedder } from "./text-embedder.js";
export { type GenerateOptions, type Prompt, TextGenerator } from "./text-generator.js";
export type { TextModelOptions, TextOrPair } from "./text-options.js";
