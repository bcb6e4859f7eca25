import { isConfigKey } from "./fields.js";
import { isGiven } from "./given-keys.js";
import type { ResolvedConfig } from "./resolve.js";
import { withChanges } from "./with-changes.js";

/** Values that a run had settled when its checkpoint was saved, by key. */
export type SettledBefore = ReadonlyMap<string, unknown>;

/** Keys whose null stands for "what the run began with". */
const settledWhereNull: readonly string[] = ["chat_template_date"];

/**
 * What a configuration leaves to the machine, or works out from the number of workers, stays what the
 * run began with: a run may go on with other workers, and on a machine with other cores.
 *
 * @returns the configuration, and a line for each value that is another one than it would have had
 */
export function takeOver(
  config: ResolvedConfig,
  before: SettledBefore,
): { readonly config: ResolvedConfig; readonly lines: readonly string[] } {
  const changes: Record<string, unknown> = {};
  const lines: string[] = [];
  const take = (key: keyof ResolvedConfig, why: string): void => {
    const value = before.get(key);
    if (typeof value !== "number" || value === config[key]) return;
    changes[key] = value;
    lines.push(`${key} stays ${value}, as the run began (${why})`);
  };
  const microBatch = config.per_device_train_batch_size;
  const isSameBatch =
    before.get("per_device_train_batch_size") === microBatch &&
    before.get("gradient_accumulation_steps") === config.gradient_accumulation_steps;
  const otherWorkers = `${show(before.get("workers"))} workers then, ${config.workers} now`;
  if (!isGiven(config, "global_batch_size") && isSameBatch) take("global_batch_size", otherWorkers);
  const globalBatch = (changes["global_batch_size"] ?? config.global_batch_size) as number;
  const groups = before.get("gradient_groups");
  if (
    !isGiven(config, "gradient_groups") &&
    typeof groups === "number" &&
    groups <= globalBatch / microBatch
  ) {
    take("gradient_groups", otherWorkers);
  }
  if (!isGiven(config, "threads_per_worker")) {
    take("threads_per_worker", "other cores or workers would give another number");
  }
  for (const key of settledWhereNull) {
    const value = before.get(key) ?? null;
    if (!isConfigKey(key) || config[key as keyof ResolvedConfig] !== null || value === null) {
      continue;
    }
    changes[key] = value;
    lines.push(`${key} stays ${show(value)}, as the run began`);
  }
  if (Object.keys(changes).length === 0) return { config, lines };
  const taken = withChanges(config, {
    ...(changes as Partial<ResolvedConfig>),
    gradient_accumulation_steps: Math.ceil(globalBatch / microBatch / config.workers),
  });
  return { config: taken, lines };
}

const show = (value: unknown): string =>
  typeof value === "string" ? value : (JSON.stringify(value) ?? "none");
