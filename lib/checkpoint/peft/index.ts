export { AdapterDirectory, loraKey, savedKey, writeAdapterDirectory } from "./adapter-directory.js";
export { classifierConfigFileName, isAdapterDirectory, readLoraConfig } from "./adapter-files.js";
export {
  defaultLoraConfig,
  formatLoraConfig,
  type LoraConfig,
  parseLoraConfig,
} from "./lora-config.js";
export { addLowRank, mergedTensors, type MergeOptions } from "./merge.js";
export { checkModuleNames, checkNoneTwice, checkTargetPattern } from "./module-names.js";
export { openPromptDirectory, promptKey, writePromptDirectory } from "./prompt-directory.js";
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
  isSavedWhole,
  rankOf,
  scaleOf,
} from "./target-modules.js";
