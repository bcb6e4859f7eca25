export { type ColumnMapping, type ColumnRole, columnRoles } from "./columns.js";
export {
  checkKeysAreRead,
  type ConfigCommand,
  configCommands,
  unreadKeys,
} from "./command-keys.js";
export { type DatasetEntry, datasetName } from "./dataset-entries.js";
export {
  dataKeys,
  dataSettings,
  decisiveKeys,
  decisiveSettings,
  freeKeys,
  resultSettings,
} from "./decisive-keys.js";
export { type ConfigKey, configKeys, defaultOf, isConfigKey, objectiveKeys } from "./fields.js";
export { parseFlags, type SourcedValue } from "./flags.js";
export { isCutoffLength } from "./tool.js";
export { isGiven, isResolved, placeOf } from "./given-keys.js";
export { alpacaForm, fillFormat, type InstructionForm } from "./instruction-form.js";
export { type LoadedConfig, loadConfig } from "./load.js";
export { chosenOptimizer } from "./optimizer.js";
export { placed } from "./placed-error.js";
export { describeKeys, printChosen, printConfig } from "./print.js";
export {
  isSecretKey,
  isSettled,
  type ResolvedConfig,
  resolveConfig,
  type SettledConfig,
  settleConfig,
} from "./resolve.js";
export { parseConfigText } from "./yaml-file.js";
export { followsMetric } from "./schedule-names.js";
export { reservedTaskName } from "./task-fields.js";
export { replayShare, taskOfEntry } from "./tasks.js";
export { type SettledBefore, takeOver } from "./take-over.js";
export { hubTokenOf } from "./secrets.js";
export {
  evaluationDelaySteps,
  intervalSteps,
  maxShardBytes,
  parseSizeBytes,
  resolveSteps,
} from "./steps.js";
export { withChanges } from "./with-changes.js";
