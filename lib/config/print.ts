import { stringify } from "yaml";
import { configKeys, fields, sections } from "./fields.js";
import { describeType } from "./describe-type.js";
import type { ResolvedConfig } from "./resolve.js";

/** The configuration as YAML that resolves to itself, keys in the order of the sections. */
export function printConfig(config: ResolvedConfig): string {
  return Object.entries(sections)
    .map(([title, keys]) => {
      const lines = Object.keys(keys).map((key) =>
        written({ [key]: config[key as keyof ResolvedConfig] }),
      );
      return `# ${title}\n${lines.join("\n")}\n`;
    })
    .join("\n");
}

/** Blanks beyond ASCII, which the parser takes from the ends of a text without quotes. */
const wideBlanks = /[\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]/;

function written(entry: Readonly<Record<string, unknown>>): string {
  const isPlain = !wideBlanks.test(JSON.stringify(entry));
  const style = isPlain ? ({} as const) : ({ defaultStringType: "QUOTE_DOUBLE" } as const);
  return stringify(entry, { lineWidth: 0, ...style, defaultKeyType: "PLAIN" }).trimEnd();
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
