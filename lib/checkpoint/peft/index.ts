export { AdapterDirectory, writeAdapterDirectory } from "./adapter-directory.js";
export { classifierConfigFileName, isAdapterDirectory, readLoraConfig } from "./adapter-files.js";
export {
  defaultLoraConfig,
  formatLoraConfig,
  type LoraConfig,
  parseLoraConfig,
} from "./lora-config.js";
export { addLowRank, mergedTensors, type MergeOptions, rescaleRows, rowNorms } from "./merge.js";
export { checkModuleNames, checkNoneTwice } from "./module-names.js";
export { checkLayers, checkPatterns, checkPatternsMatch } from "./module-patterns.js";
export { openPromptDirectory, promptKey, writePromptDirectory } from "./prompt-directory.js";
export { quantisableWeights, transposed } from "./quantised-base.js";
export {
  adapterKey,
  loraKey,
  type LoraPart,
  loraPartOf,
  loraTensorName,
  moduleOf,
} from "./tensor-names.js";
export {
  type HeadTie,
  headTieOf,
  tiedHeadPath,
  tiedModulesToSave,
  withTiedHead,
} from "./tied-modules.js";
export {
  adaptedModules,
  type AdapterFacts,
  type BaseModel,
  classifierHeads,
  completeLoraConfig,
  isInputMajor,
  isSavedWhole,
  rankOf,
  scaleOf,
} from "./target-modules.js";
