export type { Update } from "./block-passes.js";
export { clipCoefficient, totalNorm } from "./clip.js";
export { emaSlot } from "./ema.js";
export {
  type MetricSchedule,
  type MetricScheduleName,
  type MetricScheduleState,
  metricSchedule,
  readScheduleState,
} from "./metric-schedules.js";
export { maxMemoryBytes, memoryMap, shardsBytes, shardsNeeded } from "./memory-map.js";
export { type ChosenOptimizer, openOptimizer } from "./optimizers/index.js";
export {
  learningRateAt,
  type ScheduleContext,
  type ScheduleName,
  scheduleNames,
} from "./schedules.js";
export { ShardArithmetic } from "./shard-arithmetic.js";
export {
  maxSkippedStepsInARow,
  StepUpdate,
  type UpdatedShards,
  type UpdateSettings,
} from "./step-update.js";
