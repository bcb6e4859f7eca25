/**
 * Limits on what is read from model files. Each is checked against a declared length before memory
 * is taken, so that a damaged or hostile file costs an error and not the machine.
 */

/** JSON header of a safetensors file; the format's own limit in its reference reader. */
export const maxSafetensorsHeaderBytes = 100_000_000;
/** Tensors in one file: the largest open models have about 100,000. */
export const maxTensorsPerFile = 1_000_000;
/** Dimensions of a tensor; NumPy stops at 64, weights have at most 5. */
export const maxTensorRank = 32;
/** Characters of a tensor's name; the longest real ones have about 150. */
export const maxTensorNameLength = 1_024;
/** `model.safetensors.index.json`: about 100 bytes a tensor. */
export const maxWeightsIndexBytes = 64 * 1024 * 1024;
/** Shards of one model; the largest open models have about 200. */
export const maxShardsPerModel = 4_096;
/** config.json and its neighbours. */
export const maxConfigBytes = 16 * 1024 * 1024;
/** trainer_state.json: a log entry has about 300 bytes, so this is some 800,000 of them. */
export const maxTrainerStateBytes = 256 * 1024 * 1024;
/** A journal of a run, which is rewritten long before: its base, a state with its history, and records after it. */
export const maxJournalBytes = 2 * 1024 * 1024 * 1024 - 1;
/** Bytes that are converted at a time when a tensor is read; it bounds the extra memory of a read. */
export const conversionChunkBytes = 4 * 1024 * 1024;

/** Metadata entries of a GGUF file; real ones have 20 to 60. */
export const maxGgufMetadataEntries = 65_536;
/** Elements of a GGUF metadata array; the largest vocabularies have about 300,000 tokens. */
export const maxGgufArrayElements = 4_000_000;
/** One GGUF string; chat templates are the longest real ones, about 20 kB. */
export const maxGgufStringBytes = 4 * 1024 * 1024;
/** The whole part of a GGUF file before its tensors; Llama 3's, with 128,256 tokens, has 8 MB. */
export const maxGgufHeaderBytes = 512 * 1024 * 1024;
/** Alignment of tensor data in a GGUF file; 32 is the usual one. */
export const maxGgufAlignmentBytes = 1024 * 1024;
/** Layers of a model that is imported. */
export const maxGgufLayers = 4_096;
