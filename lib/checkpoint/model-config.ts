import { join } from "node:path";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import { readRegularFile } from "#lib/core/regular-file";
import { isRecord } from "./file-reader.js";
import { withJsonFields } from "./json-fields.js";
import { maxConfigBytes } from "./limits.js";

/** A model's config.json: its text, which is changed in place, and what it says. */
interface ModelConfigText {
  readonly text: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/** @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE, E_JSON_FILE */
export async function readModelConfigText(directory: string): Promise<ModelConfigText> {
  const file = join(directory, "config.json");
  const limits = { what: "model configuration", limitBytes: maxConfigBytes };
  const text = (await readRegularFile(file, limits)).toString("utf8");
  let config: unknown;
  try {
    config = parseJson(text);
  } catch (cause) {
    throw new LockstepError("E_JSON_FILE", { file, problem: String(cause) }, { cause });
  }
  if (!isRecord(config)) {
    throw new LockstepError("E_JSON_FILE", { file, problem: "it is not an object" });
  }
  return { text, config };
}

/**
 * The text of a config.json for weights of this type, for transformers of both generations. The text
 * itself is changed: a round trip through JavaScript numbers would turn Python's floats such as
 * `10000.0` into integers, which transformers checks.
 *
 * @param dtype undefined leaves what the text says
 */
export function modelConfigFor(
  { text, config }: ModelConfigText,
  dtype: FloatDtype | undefined,
): string {
  const both = withOldRotary(text, config);
  return dtype === undefined ? both : withDtype(both, config, dtype);
}

/** Sets `dtype` (v5) or `torch_dtype` (v4). */
function withDtype(
  configText: string,
  config: Readonly<Record<string, unknown>>,
  dtype: FloatDtype,
): string {
  const other = ["dtype", "torch_dtype"].filter((name) => !isTypeName(config[name]));
  if (other.length > 0) {
    const fields = Object.fromEntries(other.map((name) => [name, dtype]));
    return withDtype(withJsonFields(configText, fields), { ...config, ...fields }, dtype);
  }
  const pattern = /("(?:torch_)?dtype"\s*:\s*)(?:"[^"]*"|null)/g;
  const replaced = configText.replace(pattern, `$1"${dtype}"`);
  // A part of the model may say its own type where the whole says none.
  if ("dtype" in config || "torch_dtype" in config) return replaced;
  return replaced.replace(/\{\s*(\}?)/, (_, close: string) =>
    close === "" ? `{\n  "dtype": "${dtype}",\n  ` : `{\n  "dtype": "${dtype}"\n}`,
  );
}

/** A type, or that nothing is said of it. */
const isTypeName = (value: unknown): boolean =>
  value === undefined || value === null || typeof value === "string";

/**
 * Adds `rope_theta` and `rope_scaling` beside v5's `rope_parameters`: v4 ignores the new name and would
 * silently turn by its default base. v5 reads both and finds the same numbers.
 */
function withOldRotary(text: string, config: Readonly<Record<string, unknown>>): string {
  const parameters = config["rope_parameters"];
  if (!isRecord(parameters) || "rope_theta" in config || "rope_scaling" in config) return text;
  // What v4 has no words for stays as it is.
  const isKnownForm = Object.values(parameters).every(
    (value) => isFlat(value) || (isRecord(value) && Object.values(value).every(isFlat)),
  );
  if (!isKnownForm) return text;
  const block = /"rope_parameters"\s*:\s*/.exec(text);
  if (block === null) return text;
  const start = block.index + block[0].length;
  const end = closingBrace(text, start);
  if (end === undefined) return text;
  const raw = text.slice(start, end);
  // Gemma 3 turns its local layers by another base; v4 calls it rope_local_base_freq.
  const [global, local] = ["full_attention", "sliding_attention"].map((name) => {
    const at = new RegExp(`"${name}"\\s*:\\s*(?=\\{)`).exec(raw);
    const from = at === null ? 0 : at.index + at[0].length;
    return at === null ? undefined : raw.slice(from, closingBrace(raw, from));
  });
  const fields = scalarFields(global ?? raw);
  const theta = fields.get("rope_theta");
  const localTheta = local === undefined ? undefined : scalarFields(local).get("rope_theta");
  const partial = fields.get("partial_rotary_factor");
  const scaling = [...fields].filter(
    ([name]) => name !== "rope_theta" && name !== "partial_rotary_factor",
  );
  const isDefault = (fields.get("rope_type") ?? '"default"') === '"default"';
  const scalingText = isDefault
    ? "null"
    : `{\n${scaling.map(([name, value]) => `    "${name}": ${value}`).join(",\n")}\n  }`;
  const added = [
    ...(partial === undefined || "partial_rotary_factor" in config
      ? []
      : [`"partial_rotary_factor": ${partial}`]),
    ...(localTheta === undefined || "rope_local_base_freq" in config
      ? []
      : [`"rope_local_base_freq": ${localTheta}`]),
    `"rope_scaling": ${scalingText}`,
    ...(theta === undefined ? [] : [`"rope_theta": ${theta}`]),
  ];
  return text.slice(0, end) + added.map((field) => `,\n  ${field}`).join("") + text.slice(end);
}

/** A number, text or literal, or a list of them. */
const isFlat = (value: unknown): boolean =>
  typeof value !== "object" ||
  value === null ||
  (Array.isArray(value) && value.every((each) => typeof each !== "object" || each === null));

/** The index after the brace that closes the one at `start`; strings are skipped. */
function closingBrace(text: string, start: number): number | undefined {
  let depth = 0;
  for (let i = start; i < text.length; i++) {
    const char = text[i];
    if (char === '"') for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === "\\") i++;
    if (char === "{") depth++;
    if (char === "}" && --depth === 0) return i + 1;
  }
  return undefined;
}

/** The fields of a flat object in their spelling: numbers, strings, literals and lists of them. */
function scalarFields(object: string): ReadonlyMap<string, string> {
  const field = /"(\w+)"\s*:\s*(\[[^\]{}]*\]|"[^"\\]*"|[\w.+-]+)/g;
  return new Map([...object.matchAll(field)].map((match) => [match[1] ?? "", match[2] ?? ""]));
}
