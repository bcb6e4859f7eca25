import { entry } from "./define.js";

const at = (where: string): string => (where === "" ? "" : ` (${where})`);

/** Failures of the job's configuration; `where` is "file:line" or "flag --key". */
export const configErrors = {
  E_CONFIG_SYNTAX: entry<{ file: string; reason: string }>(
    (d) => `${d.file} is not valid YAML with one key a line: ${d.reason}`,
    "Correct the line named above; a configuration is a flat mapping such as `learning_rate: 1e-4`.",
  ),
  E_RECIPE_UNKNOWN: entry<{ name: string; near: string | undefined; names: string }>(
    (d) =>
      `There is no recipe ${d.name}${d.near === undefined ? `; there are ${d.names}` : `; did you mean ${d.near}?`}`,
    "`lockstep recipes` lists them.",
  ),
  E_FILE_EXISTS: entry<{ file: string }>(
    (d) => `${d.file} is there already, and is not overwritten.`,
    "Give another name, or remove the file.",
  ),
  E_CONFIG_UNKNOWN_KEY: entry<{
    key: string;
    where: string;
    nearest: string;
    isMapping?: boolean;
  }>(
    (d) =>
      `Unknown key ${d.key}${at(d.where)}${d.isMapping === true ? ", which holds a mapping: keys are not nested" : ""}${d.nearest === "" ? "." : `; did you mean ${d.nearest}?`}`,
    "Correct the key, or remove it; `lockstep config --keys` lists all of them.",
  ),
  E_CONFIG_MISSING_KEY: entry<{ key: string; meaning: string }>(
    (d) => `The key ${d.key} is required and has no value (${d.meaning}).`,
    "Add it to the configuration file, or give it as a flag.",
  ),
  E_CONFIG_INVALID: entry<{
    key: string;
    expected: string;
    got: string;
    where: string;
    /** What else is wrong, in the same words. */
    more?: readonly string[];
  }>(
    (d) =>
      `${d.key} must be ${d.expected}, got ${d.got}${at(d.where)}${Array.isArray(d.more) ? `; ${d.more.join("; ")}` : ""}.`,
    "Correct the value; `lockstep config --keys` shows the type and default of each key.",
  ),
  E_CONFIG_CONFLICT: entry<{ keys: string; reason: string }>(
    (d) => `The values of ${d.keys} do not go together: ${d.reason}.`,
    "Change one of them.",
  ),
  E_CONFIG_UNSUPPORTED: entry<{ key: string; value: string; reason: string; where: string }>(
    (d) => `${d.key}: ${d.value} is not supported${at(d.where)}: ${d.reason}.`,
    "Change or remove the key; ignoring it silently would give other results than you asked for.",
  ),
  E_PATH_HOME: entry<{ path: string; user: string; where: string }>(
    (d) =>
      `${d.path}${at(d.where)} begins with the home directory of ${d.user}, whom this machine does not know.`,
    "Write the whole path, or ./~NAME for a name that begins with ~.",
  ),
  E_CONFIG_FLAG: entry<{ argument: string; reason: string }>(
    (d) => `The argument ${d.argument} cannot be read: ${d.reason}.`,
    "Flags are --key value, --key=value, --bf16 or --no-bf16.",
  ),
};
