import {
  type ConfigCommand,
  type ConfigKey,
  type LoadedConfig,
  resolveConfig,
  type SourcedValue,
} from "#lib/config/index";
import { readConfigFile } from "#lib/config/yaml-file";
import { configCommands } from "#lib/config/command-keys";
import { cpuCount } from "#lib/core/cpu-count";
import { checkOptions, wrongArgument } from "./check-arguments.js";

/** Keys of a configuration with their values, as a YAML file has them; names of other tools are read too. */
export type GivenKeys = { readonly [Key in ConfigKey]?: unknown } & Readonly<
  Record<string, unknown>
>;

export interface LoadOptions {
  /** Refuses the keys that this way of running does not act on. @default "train", which acts on all */
  readonly command?: ConfigCommand;
}

/**
 * Resolves a configuration, with the checks and warnings of the commands.
 *
 * @param source the path of a YAML file, or keys
 * @param overrides keys that win over the source's, as flags do
 * @throws E_ARGUMENT, E_CONFIG_UNKNOWN_KEY, E_CONFIG_INVALID, E_CONFIG_UNSUPPORTED, E_CONFIG_CONFLICT,
 *   E_CONFIG_MISSING_KEY, E_CONFIG_SYNTAX, E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_PATH_HOME
 */
export async function loadConfig(
  source: string | GivenKeys,
  overrides: GivenKeys = {},
  options: LoadOptions = {},
): Promise<LoadedConfig> {
  const { command = "train" } = checkOptions(options, {
    command: {
      expected: configCommands.join(" or "),
      isValid: (value) => configCommands.some((each) => each === value),
    },
  });
  const file = typeof source === "string" ? source : undefined;
  const values =
    typeof source === "string" ? await readConfigFile(source) : sourced("source", source);
  const resolved = resolveConfig(
    values,
    sourced("overrides", overrides),
    { cpuCount: cpuCount() },
    command,
  );
  return { ...resolved, file };
}

/** Keys without a value, `undefined`, are not given. */
function sourced(argument: string, keys: GivenKeys): ReadonlyMap<string, SourcedValue> {
  if (!isPlainObject(keys)) throw wrongArgument(argument, "an object of keys and values", keys);
  return new Map(
    Object.entries(keys)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, { value, where: `the program's ${key}` }]),
  );
}

/** A Map or a list would be read as no keys at all. */
const isPlainObject = (value: unknown): boolean =>
  Object.prototype.toString.call(value) === "[object Object]" && !(value instanceof URL);
