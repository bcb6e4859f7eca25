import type { ConfigKey, ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { followsMetric } from "./schedule-names.js";

/** A warm-up that the schedule does not have, in transformers neither, is told of. */
export function checkSchedule(
  config: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  const { lr_scheduler_type: name, warmup_steps: warmupSteps } = config;
  const sourced = given.get("warmup_steps");
  if (sourced === undefined || warmupSteps === 0) return;
  if (name !== "constant" && !followsMetric(config)) return;
  warnings.push(`${sourced.where}: warmup_steps has no effect: ${name} has no warm-up`);
}
