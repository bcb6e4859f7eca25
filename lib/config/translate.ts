import { nearName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { parametersNames } from "#lib/parameters/index";
import { type ConfigKey, configKeys, isConfigKey, secretKeys } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { fullOnly } from "./foreign/rules.js";
import { foreignKeys } from "./foreign-keys.js";
import { same, show } from "./show.js";

/**
 * One source's keys under our names. A foreign key that holds null says nothing.
 *
 * @param method the file's `finetuning_type`, where it names one
 * @throws E_CONFIG_UNKNOWN_KEY, E_CONFIG_UNSUPPORTED, E_CONFIG_CONFLICT
 */
export function translate(
  source: ReadonlyMap<string, SourcedValue>,
  method: unknown,
  warnings: string[],
): Map<ConfigKey, SourcedValue> {
  const ours = new Map<ConfigKey, SourcedValue>();
  for (const [key, sourced] of source) if (isConfigKey(key)) ours.set(key, sourced);
  for (const [key, sourced] of source) {
    if (isConfigKey(key)) continue;
    const { value, where } = sourced;
    const rule = Object.hasOwn(foreignKeys, key) ? foreignKeys[key] : undefined;
    if (rule === undefined) {
      throw new LockstepError("E_CONFIG_UNKNOWN_KEY", {
        key,
        where,
        nearest: likeliestKey(key) ?? "",
        isMapping: typeof value === "object" && value !== null && !Array.isArray(value),
      });
    }
    if (value === null || value === undefined) continue;
    const unsupported = (reason: string): LockstepError =>
      new LockstepError("E_CONFIG_UNSUPPORTED", { key, value: show(value), reason, where });
    switch (rule.kind) {
      case "renamed": {
        if (rule.only !== undefined && !rule.only.values.some((one) => same(one, value))) {
          throw unsupported(rule.only.reason);
        }
        let converted = rule.convert === undefined ? value : rule.convert(value);
        if (converted === undefined) break;
        const before = ours.get(rule.to);
        const merged =
          before === undefined ? undefined : rule.merge?.(before.value ?? undefined, converted);
        if (merged !== undefined) converted = merged;
        else if (
          before !== undefined &&
          !same(before.value, rule.overrides) &&
          !same(before.value, converted)
        ) {
          throw new LockstepError("E_CONFIG_CONFLICT", {
            keys: `${key} and ${rule.to}`,
            reason: `both name ${rule.to} (${where})`,
          });
        }
        ours.set(rule.to, { value: converted, where: `${where}, given as ${key}` });
        const shown = secretKeys.includes(rule.to) ? "a secret" : show(converted);
        warnings.push(`${where}: ${key} is read as ${rule.to}: ${shown}`);
        break;
      }
      case "fixed":
        if (!rule.allowed.some((allowed) => same(allowed, value))) throw unsupported(rule.reason);
        break;
      case "joint":
        break;
      case "method":
        if (!parametersNames.includes(String(method))) {
          throw unsupported(`${rule.method} is not in this version: ${fullOnly}`);
        }
        warnings.push(`${where}: ${key} has no effect: it is an option of ${rule.method}`);
        break;
      case "ignored":
        if (!same(rule.default, value)) {
          warnings.push(`${where}: ${key} has no effect: ${rule.reason}`);
        }
    }
  }
  return ours;
}

/** A key that differs by a slip of the hand, else one of ours that has the name within it: `batch_size`. */
function likeliestKey(name: string): string | undefined {
  const snake = name.replaceAll("-", "_").toLowerCase();
  const near = nearName(snake, [...configKeys, ...Object.keys(foreignKeys)]);
  if (near !== undefined) return near;
  return configKeys.find((key) => `_${key}_`.includes(`_${snake}_`));
}
