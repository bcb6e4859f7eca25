export { clipCoefficient, totalNorm } from "./clip.js";
export { LossScaler, type LossScalerState } from "./loss-scaler.js";
export { type MemoryMap, maxMemoryBytes, memoryMap, shardsNeeded } from "./memory-map.js";
export {
  learningRateAt,
  type ScheduleContext,
  type ScheduleKwargs,
  type ScheduleName,
  scheduleNames,
} from "./schedules.js";
export type { AdamWStep, SgdStep } from "./block-passes.js";
export { ShardArithmetic } from "./shard-arithmetic.js";
export {
  maxSkippedStepsInARow,
  type OptimizerSettings,
  type StepGradient,
  UpdateRule,
} from "./update-rule.js";
