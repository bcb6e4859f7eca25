import { type ColumnRole, columnRoles } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { fieldsOf } from "#lib/data/json-data";
import type { RawExample } from "#lib/data/readers/index";
import {
  type ChatForm,
  type ColumnNames,
  type DatasetFormat,
  datasetFormats,
  type FormatOptions,
  RawFields,
} from "./example.js";
import { preferenceColumns } from "./preference.js";

/** How the examples of a file are read. */
export interface ExampleReading extends FormatOptions {
  readonly format: DatasetFormat;
  /** What a person should know about it. */
  readonly note?: string;
  /** Columns that are read, and those that the note tells; absent where nothing is told of columns. */
  readonly knownColumns?: ReadonlySet<string>;
}

/** Parts of an example that a format reads. */
const rolesOf: Readonly<Record<DatasetFormat, readonly ColumnRole[]>> = {
  text: ["text"],
  "prompt-completion": ["prompt", "response", "tools"],
  messages: ["messages", "system", "tools"],
  alpaca: ["prompt", "query", "response", "history", "system", "tools"],
  sharegpt: ["messages", "system", "tools"],
  classification: ["text", "pair", "label"],
  preference: [
    ...(["chosen", "rejected", "prompt", "query", "history"] as const),
    ...(["messages", "system", "tools", "margin"] as const),
  ],
};

/** Columns that a format reads where nothing else is said. */
const usualColumns: Readonly<Record<DatasetFormat, Partial<Record<ColumnRole, string>>>> = {
  text: { text: "text" },
  "prompt-completion": { prompt: "prompt", response: "completion", tools: "tools" },
  messages: { messages: "messages", tools: "tools" },
  alpaca: {
    ...{ prompt: "instruction", query: "input", response: "output" },
    ...{ history: "history", system: "system", tools: "tools" },
  },
  sharegpt: { messages: "conversations", system: "system", tools: "tools" },
  classification: { label: "label" },
  preference: {
    ...{ chosen: "chosen", rejected: "rejected", prompt: "prompt", query: "input" },
    ...{ history: "history", messages: "messages", system: "system", tools: "tools" },
    margin: "margin",
  },
};
const textColumns = ["text", "sentence", "sentence1", "sentence2"];

/** Names under `columns` that only one format has; the first that is given decides. */
const tellingNames: readonly (readonly [DatasetFormat, readonly string[]])[] = [
  ["preference", ["chosen", "rejected", "margin"]],
  ["classification", ["label", "pair", "sentence", "sentence1", "sentence2"]],
  ["alpaca", ["instruction", "input", "output", "query", "history"]],
  ["prompt-completion", ["completion"]],
];

/** What is said of examples before one of them is looked at. */
type SaidOfExamples = FormatOptions & { readonly format?: DatasetFormat };

/**
 * How a file is read, by its first example and by what the configuration says of its columns.
 *
 * @throws E_DATA_FORMAT_UNKNOWN, E_DATA_COLUMNS where columns do not fit the example
 */
export function readingOf(raw: RawExample, options: SaidOfExamples): ExampleReading {
  refuseColumns(raw);
  // Every format may have weights: their column tells none.
  const { weight, ...mapping } = options.mapping ?? {};
  if (weight === undefined) return unweighedReading(raw, options);
  const names = Object.keys(raw.fields);
  if (!names.includes(weight)) {
    const problem = `columns names ${JSON.stringify(weight)} for weight`;
    throw new LockstepError("E_DATA_COLUMNS", { place: raw.place, problem, columns: names });
  }
  const { [weight]: _, ...fields } = raw.fields;
  const reading = unweighedReading({ ...raw, fields }, { ...options, mapping });
  const knownColumns = reading.knownColumns && new Set([...reading.knownColumns, weight]);
  return {
    ...reading,
    columns: { ...reading.columns, weight },
    ...(knownColumns === undefined ? {} : { knownColumns }),
  };
}

function unweighedReading(raw: RawExample, options: SaidOfExamples): ExampleReading {
  const { mapping, format, columns, chat, instructions } = options;
  if (mapping !== undefined && Object.keys(mapping).length > 0) {
    return withUnread(raw, mappedReading(raw, options));
  }
  if (format === undefined) return withUnread(raw, recognisedReading(raw, options));
  // Whoever says the format and its columns has said what is read.
  const isSaid = columns !== undefined || chat !== undefined || instructions !== undefined;
  if (!isSaid) return withUnread(raw, { ...options, format });
  const { margin } = columns ?? {};
  const isUnread = options.ignoresMargins === true && Object.hasOwn(raw.fields, margin ?? "");
  const note = isUnread ? { note: `columns that are not read: ${margin}` } : {};
  return { ...options, ...note, format };
}

const isObject = (value: unknown): boolean => fieldsOf(value) !== undefined;

/** A table that was written as one object, by its columns or by its index, is no example. */
function refuseColumns({ place, fields }: RawExample): void {
  const values = Object.values(fields);
  const isIndexed = (value: unknown): boolean => {
    const keys = Object.keys(fieldsOf(value) ?? {});
    return keys.length > 0 && keys.every((key) => /^\d+$/.test(key));
  };
  const isList = (value: unknown): boolean =>
    Array.isArray(value) && value.length > 0 && !value.some((each) => typeof each === "object");
  const isByIndex =
    values.every(isObject) && Object.keys(fields).every((name) => /^\d+$/.test(name));
  const isTable = isByIndex || values.every(isIndexed) || values.every(isList);
  if (values.length === 0 || !isTable) return;
  const found = `the fields ${Object.keys(fields).slice(0, maxListedColumns).join(", ")}`;
  const advice =
    'it holds a whole table: in Python, a table\'s to_json(FILE, orient="records", lines=True) writes rows';
  const facts = { place, found, known: datasetFormats, advice };
  throw new LockstepError("E_DATA_FORMAT_UNKNOWN", facts);
}

/** Tells the columns that are not read. @throws E_DATA_COLUMNS where the answer's is not there */
function withUnread(raw: RawExample, reading: ExampleReading): ExampleReading {
  const { format, columns = {} } = reading;
  const names = Object.keys(raw.fields);
  const whole: ColumnNames = { ...usualColumns[format], ...columns };
  const isTextRead = format === "classification" && columns.text === undefined;
  const read =
    format === "preference"
      ? preferenceColumns(new RawFields(format, raw.place, raw.fields), reading)
      : [
          ...Object.values(whole),
          ...(isTextRead ? textColumns : []),
          // OpenAI's older name of tools.
          ...(format === "messages" ? ["functions"] : []),
        ];
  const unread = names.filter((name) => !read.includes(name) && name !== "");
  const knownColumns = new Set([...read, ...names]);
  if (unread.length === 0) return { ...reading, knownColumns };
  const { response } = whole;
  if (format === "alpaca" && response !== undefined && !names.includes(response)) {
    const problem = `it has no column ${response} for the answer`;
    throw new LockstepError("E_DATA_COLUMNS", { place: raw.place, problem, columns: names });
  }
  const told = reading.note === undefined ? "" : `${reading.note}; `;
  const note = `${told}columns that are not read: ${listedColumns(unread)}`;
  return { ...reading, note, knownColumns };
}

const maxListedColumns = 8;

function listedColumns(names: readonly string[]): string {
  const more = names.length > maxListedColumns ? ", ..." : "";
  return `${names.slice(0, maxListedColumns).join(", ")}${more}`;
}

/** Columns that are not read and that only later examples of a file have: what they hold is told too. */
export class LaterColumns {
  readonly #known: ReadonlySet<string> | undefined;
  readonly #found = new Set<string>();
  #place = "";

  constructor({ knownColumns }: ExampleReading) {
    this.#known = knownColumns;
  }

  look({ place, fields }: RawExample): void {
    if (this.#known === undefined || this.#found.size > maxListedColumns) return;
    for (const name of Object.keys(fields)) {
      if (this.#known.has(name) || this.#found.has(name) || name === "") continue;
      if (isEmpty(fields[name])) continue;
      if (this.#found.size === 0) this.#place = place;
      this.#found.add(name);
    }
  }

  /** For a person; undefined where there are none. */
  get note(): string | undefined {
    if (this.#found.size === 0) return undefined;
    const names = listedColumns([...this.#found]);
    return `columns that are not read: ${names} (from ${this.#place} on)`;
  }
}

const isEmpty = (value: unknown): boolean =>
  value === null ||
  value === undefined ||
  value === "" ||
  (Array.isArray(value) && value.length === 0);

function recognisedReading(raw: RawExample, options: SaidOfExamples): ExampleReading {
  const { columns, chat, tags } = options;
  const textField = columns?.text ?? "text";
  const format = recogniseFormat(raw, { textField });
  if (format === "classification" && options.prefersText === true) {
    const note =
      "labels are not read: dataset_text_field trains on texts (dataset_format: classification trains a classifier)";
    return { ...options, format: "text", note };
  }
  if (chat !== undefined || tags !== undefined || columns?.messages !== undefined) {
    return { ...options, format };
  }
  const isLacking = columns?.text !== undefined && !Object.hasOwn(raw.fields, textField);
  const note = isLacking
    ? {
        note: `rows are read as ${format}: they have no column ${textField}, which dataset_text_field names`,
      }
    : {};
  if (format !== "sharegpt" && format !== "messages") return { ...options, ...note, format };
  const field = format === "sharegpt" ? "conversations" : "messages";
  const told = formatOfMessages(raw.fields[field], format);
  return { ...options, ...note, format: told, columns: { ...columns, messages: field } };
}

function mappedReading(raw: RawExample, options: SaidOfExamples): ExampleReading {
  const { mapping = {} } = options;
  const fail = (problem: string): never => {
    const names = Object.keys(raw.fields);
    throw new LockstepError("E_DATA_COLUMNS", { place: raw.place, problem, columns: names });
  };
  const lacking = Object.entries(mapping).find(([, name]) => !Object.hasOwn(raw.fields, name));
  if (lacking !== undefined) {
    fail(`columns names ${JSON.stringify(lacking[1])} for ${lacking[0]}`);
  }
  const format = options.format ?? formatOfMapping(raw, mapping, fail);
  const columns: Partial<Record<ColumnRole, string>> = {};
  for (const [name, column] of Object.entries(mapping)) {
    const role = columnRoles[name];
    if (role === undefined) continue;
    if (!rolesOf[format].includes(role)) {
      fail(`columns names ${name}, which rows of the format ${format} do not have`);
    }
    if (role === "margin" && options.ignoresMargins === true) {
      fail("columns names margin, which only objective: reward reads");
    }
    columns[role] = column;
  }
  const whole: ColumnNames = { ...options.columns, ...columns };
  // Messages have their own system message, unless a column is named for it.
  const chat = format === "messages" && columns.system !== undefined ? { chat: plainForm } : {};
  return { ...options, ...chat, format, columns: whole };
}

const plainForm: ChatForm = {
  parts: { role: "role", content: "content" },
  roles: new Map(),
  dropsSystem: false,
};

function formatOfMapping(
  raw: RawExample,
  mapping: Readonly<Record<string, string>>,
  fail: (problem: string) => never,
): DatasetFormat {
  const has = (name: string): boolean => Object.hasOwn(mapping, name);
  const isThere = (name: string): boolean => Object.hasOwn(raw.fields, name);
  const told = tellingNames.find(([, names]) => names.some(has));
  if (told !== undefined) return told[0];
  for (const [name, usual] of [
    ["conversations", "sharegpt"],
    ["messages", "messages"],
  ] as const) {
    if (has(name)) return formatOfMessages(raw.fields[mapping[name] ?? ""], usual);
  }
  if (has("prompt") || has("response")) {
    const isAlpaca = isThere("instruction") || isThere("output") || isThere("input");
    const isPlain = isThere("completion") || (isThere("prompt") && !has("prompt"));
    if (isAlpaca !== isPlain) return isAlpaca ? "alpaca" : "prompt-completion";
    return fail(
      "prompt and response are parts of alpaca and of prompt-completion: set dataset_format to one of them, or write completion or output for response",
    );
  }
  if (has("text")) return isThere("label") ? "classification" : "text";
  return recogniseFormat(raw);
}

/** Lists of messages are OpenAI's or ShareGPT's by the names of a message's parts. */
function formatOfMessages(list: unknown, usual: "messages" | "sharegpt"): "messages" | "sharegpt" {
  const first = Array.isArray(list) ? fieldsOf(list[0]) : undefined;
  if (first === undefined) return usual;
  if (typeof first["role"] === "string" && !Object.hasOwn(first, "from")) return "messages";
  return typeof first["from"] === "string" && !Object.hasOwn(first, "role") ? "sharegpt" : usual;
}

/**
 * The format of an example, by its fields: the most telling ones first, `text` alone last.
 *
 * @param textField the column of texts. @throws E_DATA_FORMAT_UNKNOWN
 */
export function recogniseFormat(
  { place, fields }: RawExample,
  { textField = "text" }: { textField?: string } = {},
): DatasetFormat {
  const has = (...names: string[]): boolean => names.every((name) => Object.hasOwn(fields, name));
  if (has("chosen", "rejected")) return "preference";
  if (has("messages")) return "messages";
  if (has("conversations")) return "sharegpt";
  if (has("instruction")) return "alpaca";
  if (has("prompt", "completion")) return "prompt-completion";
  if (has("label") && [textField, "text", "sentence1", "sentence"].some((name) => has(name))) {
    return "classification";
  }
  if (has(textField)) return "text";
  const names = Object.keys(fields).slice(0, 10);
  const found = names.length === 0 ? "no fields" : `the fields ${names.join(", ")}`;
  const wrapped = Object.entries(fields).find(
    ([, value]) => Array.isArray(value) && value.length > 0 && value.every(isObject),
  )?.[0];
  const facts = { place, found, known: datasetFormats };
  if (wrapped === undefined) {
    const near = Object.keys(fields).flatMap((name): [string, string][] => {
      const ours = name.toLowerCase().replace(/^labels$/, "label");
      return Object.hasOwn(columnRoles, ours) && ours !== name ? [[ours, name]] : [];
    });
    const columns = near.map(([ours, name]) => `${ours}: ${name}`).join(", ");
    const advice = columns === "" ? {} : { advice: `columns: {${columns}} may be what is meant` };
    throw new LockstepError("E_DATA_FORMAT_UNKNOWN", { ...facts, ...advice });
  }
  const advice = `the rows seem to stand in its field ${wrapped}: write them as the file's own array, or one a line (jq -c '.${wrapped}[]')`;
  throw new LockstepError("E_DATA_FORMAT_UNKNOWN", { ...facts, advice });
}
