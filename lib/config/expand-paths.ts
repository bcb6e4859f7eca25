import { expandHome } from "#lib/core/home-path";
import { type ConfigKey, type ParsedConfig, pathKeys } from "./fields.js";
import type { SourcedValue } from "./flags.js";

/** The values of keys that are paths, with home directories in place of `~`. @throws E_PATH_HOME */
export function expandPaths(
  config: Omit<ParsedConfig, "hub_token">,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
): Partial<ParsedConfig> {
  const expanded = pathKeys.map((key) => {
    const where = given.get(key)?.where;
    const expand = (value: unknown): unknown => {
      if (typeof value === "string") return expandHome(value, where);
      if (Array.isArray(value)) return value.map(expand);
      if (typeof value !== "object" || value === null) return value;
      // An entry of a list of data sets.
      const entry = value as Readonly<Record<string, unknown>>;
      return Object.fromEntries(
        Object.entries(entry).map(([name, part]) => [
          name,
          name === "path" || name === "data_files" ? expand(part) : part,
        ]),
      );
    };
    return [key, expand(config[key])];
  });
  return Object.fromEntries(expanded) as Partial<ParsedConfig>;
}
