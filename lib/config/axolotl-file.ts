import { LockstepError } from "#lib/core/errors/index";
import type { ConfigKey } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { show } from "./show.js";
import { isMultiple } from "./steps.js";

type Source = ReadonlyMap<string, SourcedValue>;
type Given = ReadonlyMap<ConfigKey, SourcedValue>;

/** Keys that only axolotl has: a file with one of them was written for it. */
const marks = ["datasets", "test_datasets", "micro_batch_size", "sequence_len", "val_set_size"];
const perEpochKeys = { eval: "evals_per_epoch", save: "saves_per_epoch" } as const;

/** Defaults of axolotl that differ from ours and change results. */
const plainDefaults: readonly (readonly [ConfigKey, unknown])[] = [
  ["max_length", 512],
  ["num_train_epochs", 1],
  ["per_device_train_batch_size", 1],
  ["validation_split", 0],
  ["lr_scheduler_type", "cosine"],
  ["warmup_steps", 0.03],
];

/**
 * What a file of axolotl leaves unsaid, and what it says with keys that are read together: evaluations
 * and checkpoints by the epoch.
 *
 * @throws E_CONFIG_INVALID, E_CONFIG_CONFLICT
 */
export function axolotlDefaults(
  file: Source,
  flags: Source,
  given: Given,
  warnings: string[],
): [ConfigKey, SourcedValue][] {
  const isMarked = [...marks, ...Object.values(perEpochKeys)].some(
    (key) => isSaid(flags.get(key)) || isSaid(file.get(key)),
  );
  if (!isMarked) return [];
  const known = new Map(given);
  const added: [ConfigKey, SourcedValue][] = [];
  const told: string[] = [];
  const add = (key: ConfigKey, value: unknown, where: string): void => {
    if (known.has(key)) return;
    known.set(key, { value, where });
    added.push([key, { value, where }]);
    if (where === ofTool) told.push(`${key}: ${String(value)}`);
  };
  for (const [key, value] of plainDefaults) add(key, value, ofTool);
  const bf16 = known.get("bf16");
  if (bf16?.value === "auto" && !isSaid(known.get("fp16"))) {
    // A GPU without bfloat16 trains in float16 there.
    known.delete("fp16");
    add("fp16", "auto", bf16.where);
  }
  // Evaluation has the batch of training, which is chosen for the memory that there is.
  add("per_device_eval_batch_size", known.get("per_device_train_batch_size")?.value, ofTool);
  const validates =
    (known.get("eval_dataset")?.value ?? null) !== null ||
    known.get("validation_split")?.value !== 0;
  for (const what of ["eval", "save"] as const) {
    const key = perEpochKeys[what];
    const isOverridden = flags.has(`${what}_steps`) || flags.has(`${what}_strategy`);
    const sourced = flags.get(key) ?? (isOverridden ? undefined : file.get(key));
    const count = isSaid(sourced) ? readCount(key, sourced) : 0;
    const where = `${sourced?.where ?? ""}, given as ${key}`;
    if (what === "eval" && !validates) {
      if (count > 0) warnings.push(`${sourced?.where}: ${key} has no effect: nothing is validated`);
      continue;
    }
    if (count > 0 && known.has(`${what}_steps`)) {
      const keys = `${key} and ${what}_steps`;
      throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason: "both say how often" });
    }
    const share = 1 / (count * Number(known.get("num_train_epochs")?.value));
    if (count > 0 && share < 1) {
      add(`${what}_strategy`, "steps", where);
      add(`${what}_steps`, share, where);
      warnings.push(
        `${sourced?.where}: ${key} is read as ${what}_steps: ${show(share)} of the run`,
      );
    } else {
      const isBySteps = known.has(`${what}_steps`);
      add(`${what}_strategy`, isBySteps ? "steps" : "epoch", ofTool);
      if (count > 0) warnings.push(`${sourced?.where}: ${key} is read as ${what}_strategy: epoch`);
    }
  }
  const [evalSteps, saveSteps] = (["eval_steps", "save_steps"] as const).map((key) =>
    Number(known.get(key)?.value),
  );
  // What stops early ends with its best model there, where each save has its evaluation.
  const stopsEarly =
    isSaid(known.get("early_stopping_patience")) &&
    ["eval_strategy", "save_strategy"].every(
      (key) => known.get(key as ConfigKey)?.value === "steps",
    );
  if (stopsEarly && validates && isMultiple(saveSteps ?? 0, evalSteps ?? 0)) {
    add("load_best_model_at_end", true, ofTool);
  }
  if (told.length > 0) {
    warnings.push(`read as a file of axolotl, whose defaults hold: ${told.join(", ")}`);
  }
  return added;
}

/** @throws E_CONFIG_CONFLICT for keys that only axolotl's defaults give a meaning, in another tool's file */
export function refusePerEpoch(tool: string, ...sources: readonly Source[]): void {
  for (const key of Object.values(perEpochKeys)) {
    if (!sources.some((source) => isSaid(source.get(key)))) continue;
    const reason = `one is axolotl's and the other ${tool}'s`;
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: `${key} and stage or template`, reason });
  }
}

const ofTool = "default of axolotl";

const isSaid = (sourced: SourcedValue | undefined): sourced is SourcedValue =>
  (sourced?.value ?? null) !== null;

function readCount(key: string, { value, where }: SourcedValue): number {
  if (typeof value === "number" && value >= 0) return value;
  const expected = "a number of at least 0";
  throw new LockstepError("E_CONFIG_INVALID", { key, expected, got: show(value), where });
}
