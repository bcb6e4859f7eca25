export { type ConfigCommand, configCommands, unreadKeys } from "./command-keys.js";
export { type DatasetEntry, datasetName } from "./dataset-entries.js";
export { type ConfigKey, configKeys, defaultOf } from "./fields.js";
export { type ParsedFlags, parseFlags, type SourcedValue } from "./flags.js";
export { alpacaForm, fillFormat, type InstructionForm } from "./instruction-form.js";
export { type LoadedConfig, loadConfig } from "./load.js";
export { describeKeys, printChosen, printConfig } from "./print.js";
export {
  isSettled,
  type ResolvedConfig,
  resolveConfig,
  type SettledConfig,
  settleConfig,
} from "./resolve.js";
export { hubTokenOf } from "./secrets.js";
export { schedulerNames } from "./schedule-names.js";
export {
  evaluationDelaySteps,
  intervalSteps,
  maxShardBytes,
  parseSizeBytes,
  resolveSteps,
} from "./steps.js";
