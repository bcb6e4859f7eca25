export {
  AdapterDirectory,
  type AdapterContent,
  type AdapterModule,
  adapterWeightsFileName,
  loraKey,
  savedKey,
  writeAdapterDirectory,
} from "./adapter-directory.js";
export { classifierConfigFileName, isAdapterDirectory, readLoraConfig } from "./adapter-files.js";
export {
  adapterConfigFileName,
  defaultLoraConfig,
  formatLoraConfig,
  type LoraConfig,
  type ModuleSelection,
  parseLoraConfig,
} from "./lora-config.js";
export { addLowRank, type LowRankUpdate, mergedTensors, type MergeOptions } from "./merge.js";
export {
  checkModuleNames,
  checkNoneTwice,
  checkTargetPattern,
  moduleKeys,
} from "./module-names.js";
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
  isTarget,
  type LinearModule,
  linearModules,
  rankOf,
  scaleOf,
} from "./target-modules.js";
