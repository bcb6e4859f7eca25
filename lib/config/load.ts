import { cpuCount } from "#lib/core/cpu-count";
import { LockstepError } from "#lib/core/errors/index";
import type { ConfigCommand } from "./command-keys.js";
import { parseFlags } from "./flags.js";
import { isKnownKey, isSwitchKey, isTextKey, type Resolution, resolveConfig } from "./resolve.js";
import { readConfigFile } from "./yaml-file.js";

export interface LoadedConfig extends Resolution {
  /** The file the configuration came from; undefined when flags gave all of it. */
  readonly file: string | undefined;
}

/**
 * Resolves the arguments of a command: at most one YAML file, then flags that override it.
 *
 * @param command refuses the keys that it does not act on; absent: none is refused for that
 */
export async function loadConfig(
  args: readonly string[],
  command?: ConfigCommand,
): Promise<LoadedConfig> {
  const { values: flags, positionals } = parseFlags(args, isSwitchKey, isTextKey, isKnownKey);
  if (positionals.length > 1) {
    throw new LockstepError("E_CONFIG_FLAG", {
      argument: positionals[1] ?? "",
      reason: whyNotAFile(positionals[1] ?? "", positionals[0] ?? ""),
    });
  }
  const file = positionals[0];
  const fromFile = file === undefined ? new Map() : await readConfigFile(file);
  return {
    ...resolveConfig(fromFile, flags, { cpuCount: cpuCount() }, command),
    file,
  };
}

function whyNotAFile(argument: string, before: string): string {
  if (argument.startsWith("-")) return "flags have two dashes, --learning-rate 1e-4";
  if (argument.includes("=")) return `a flag starts with two dashes, --${argument}`;
  return `one configuration file is expected, and ${before} was given before it`;
}
