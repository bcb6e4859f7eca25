export { clipCoefficient, totalNorm } from "./clip.js";
export { emaSlot } from "./ema.js";
export {
  finishFisher,
  type MeasuredShards,
  type PenalisedShards,
} from "./ewc.js";
export {
  type MetricSchedule,
  type MetricScheduleName,
  type MetricScheduleState,
  metricSchedule,
  readScheduleState,
} from "./metric-schedules.js";
export {
  LossTerms,
  type LossTermsSettings,
  type LossTermsState,
  readLossTerms,
} from "./loss-terms.js";
export { gradScalerDefaults, type LossScalerState } from "./loss-scaler.js";
export { maxMemoryBytes, memoryMap, shardsBytes, shardsNeeded } from "./memory-map.js";
export { type ChosenOptimizer, openOptimizer } from "./optimizers/index.js";
export type { Update } from "./region-update.js";
export {
  learningRateAt,
  type ScheduleContext,
  type ScheduleName,
  scheduleNames,
} from "./schedules.js";
export { ShardArithmetic } from "./shard-arithmetic.js";
export {
  maxSkippedStepsInARow,
  type SkippedSteps,
  StepUpdate,
  type UpdatedShards,
  type UpdateSettings,
} from "./step-update.js";
export type { Measurement } from "./tensor-passes.js";
export type { SumWindow } from "./tensor-sums.js";
