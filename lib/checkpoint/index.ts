export { saveAtomically, saveFilesAtomically } from "./atomic-save.js";
export { verifyChecksums, writeChecksums } from "./checksums.js";
export { preTokenizerName } from "./gguf/byte-level.js";
export { importGguf } from "./gguf/import.js";
export { tensorTypes } from "./gguf/tensor-types.js";
export { tokenType } from "./gguf/vocabulary.js";
export { type GgufMetadataValue, writeGguf } from "./gguf/writer.js";
export {
  type ModelDirectoryOptions,
  type ModelTensor,
  writeModelDirectory,
} from "./model-directory.js";
export { ModelWeights } from "./model-weights.js";
export { OptimizerStateReader, writeOptimizerState } from "./optimizer-state.js";
export {
  checkpointName,
  listCheckpoints,
  listOwnedCheckpoints,
  type OwnedCheckpoint,
  rotateCheckpoints,
} from "./rotation.js";
export { identityDifferences, type RunIdentity } from "./run-identity.js";
export {
  type CheckpointRecord,
  newRunRecord,
  type OutputRecord,
  outputRecordFile,
  readCheckpointRecord,
  readOutputRecord,
  sizesOf,
  type RunRecord,
  writeCheckpointRecord,
  writeOutputRecord,
} from "./run-record.js";
export { type ElementSpan, openSafetensors, SafetensorsFile } from "./safetensors-file.js";
export type { StoredDtype, StoredTensor, TensorEntry } from "./safetensors-header.js";
export { writeSafetensors } from "./safetensors-writer.js";
export { checkTiedHead } from "./tied-head.js";
export { type NamedTensor, writeTensors } from "./tensor-store.js";
export {
  type LogEntry,
  readTrainerState,
  type TrainerState,
  trainerState,
  writeTrainerState,
} from "./trainer-state.js";
