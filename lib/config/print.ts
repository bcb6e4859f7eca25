import { stringify } from "yaml";
import { configKeys, fields, sections } from "./fields.js";
import { describeType } from "./describe-type.js";
import type { ResolvedConfig } from "./resolve.js";

/** The configuration as YAML that resolves to itself, keys in the order of the sections. */
export function printConfig(config: ResolvedConfig): string {
  return Object.entries(sections)
    .map(([title, keys]) => {
      const lines = Object.keys(keys).map((key) =>
        stringify({ [key]: config[key as keyof ResolvedConfig] }, { lineWidth: 0 }).trimEnd(),
      );
      return `# ${title}\n${lines.join("\n")}\n`;
    })
    .join("\n");
}

/** Only the keys whose value is not the default, or has none: what makes this run what it is. */
export function printChosen(config: ResolvedConfig): string {
  return configKeys
    .filter((key) => {
      const standard = fields[key].safeParse(undefined);
      return !standard.success || JSON.stringify(standard.data) !== JSON.stringify(config[key]);
    })
    .map((key) => stringify({ [key]: config[key] }, { lineWidth: 0, collectionStyle: "flow" }))
    .map((line) => line.trim().replace(/^\{ (.*) \}$/s, "$1"))
    .join("\n");
}

/** Every key with its type, default and meaning, for people. */
export function describeKeys(): string {
  return configKeys
    .map((key) => {
      const schema = fields[key];
      const parsed = schema.safeParse(undefined);
      const standard = parsed.success ? JSON.stringify(parsed.data) : "required";
      const meaning = schema.description === undefined ? "" : `\n    ${schema.description}`;
      return `${key}: ${standard}\n    ${describeType(schema)}${meaning}`;
    })
    .join("\n");
}
