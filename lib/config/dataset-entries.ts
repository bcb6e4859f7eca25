import { nearestName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { type ColumnMapping, readColumns } from "./columns.js";
import { type InstructionForm, readInstructionForm } from "./instruction-form.js";
import { same, show } from "./show.js";

/** What rows of an entry hold; absent: recognised by their columns. */
type EntryType = "completion" | "alpaca" | "chat_template" | InstructionForm;

/** One data set with what its rows look like, in the form of axolotl's `datasets`. */
export interface DatasetEntry {
  /** A file, a directory or a pattern; or the kind of file (json, csv, parquet) where data_files names files. */
  readonly path: string;
  readonly data_files?: readonly string[];
  readonly type?: EntryType;
  /** What is learnt of the rows, by a name of its own, where a run has several tasks. */
  readonly task?: string;
  /** The split of a directory; `train[:100]` takes its first rows. */
  readonly split?: string;
  /** The subset of a directory whose README.md lists several. */
  readonly name?: string;
  /** The data's names of columns, by ours, where there is no type. */
  readonly columns?: ColumnMapping;
  /** Column of a completion's text. */
  readonly field?: string;
  readonly field_messages?: string;
  readonly field_system?: string;
  readonly field_tools?: string;
  /** Our names of a message's parts, and the data's. */
  readonly message_property_mappings?: Readonly<Record<string, string>>;
  /** Part of a message that says whether it is learnt. */
  readonly message_field_training?: string;
  /** Our names of the roles, and the data's. */
  readonly roles?: Readonly<Record<string, readonly string[]>>;
  readonly drop_system_message?: boolean;
}

/** Where an entry stands, for messages. */
export interface EntryPlace {
  /** Such as dataset[0]. */
  readonly key: string;
  readonly where: string;
  readonly warn: (text: string) => void;
}

const chatKeys = [
  "field_messages",
  "field_system",
  "field_tools",
  "message_property_mappings",
  "message_field_training",
  "roles",
  "drop_system_message",
];
/** What a type reads beside path and data_files. */
const keysOfType: Readonly<Record<string, readonly string[]>> = {
  completion: ["field"],
  alpaca: [],
  chat_template: chatKeys,
  instructions: [],
};

/** Older names of one key, or of a part of it. */
const messageParts: Readonly<Record<string, string>> = {
  message_field_role: "role",
  message_field_content: "content",
};

const ownTemplate =
  "the chat template of the model's own directory is used; chat_template beside the data sets checks that it has a format";

const refused: Readonly<Record<string, readonly [allowed: readonly unknown[], reason: string]>> = {
  shards: [[], "all rows of a file are read; max_samples limits them"],
  shards_idx: [[], "all rows of a file are read"],
  input_transform: [[], "code beside a data set is never run"],
  input_format: [[], "write type as a mapping with format and no_input_format"],
  train_on_eos: [["turn"], "the token that ends an answer that is learnt is learnt, and no other"],
  train_on_eot: [["turn"], "the token that ends an answer that is learnt is learnt, and no other"],
  message_field_training_detail: [[], "a message is learnt whole or not at all"],
  conversation: [[], ownTemplate],
  chat_template: [["tokenizer_default"], ownTemplate],
  chat_template_jinja: [[], "put the template into chat_template.jinja in the model's directory"],
  field_human: [[], "write type as a mapping with field_instruction and field_output"],
  field_model: [[], "write type as a mapping with field_instruction and field_output"],
  field_thinking: [[], "thoughts are a part of a message's content"],
  template_thinking_key: [[], "thoughts are a part of a message's content"],
  split_thinking: [[false], "thoughts are a part of a message's content"],
  logprobs_field: [[], "distillation is not in this version"],
  temperature: [[], "distillation is not in this version"],
};

const ignored: Readonly<Record<string, readonly [standard: unknown, reason: string]>> = {
  trust_remote_code: [false, "code beside a data set is never run"],
  revision: [null, "nothing is downloaded"],
  preprocess_shards: [null, "rows are prepared as a stream"],
};

const typeNames = "completion, alpaca, chat_template, or a mapping with field_instruction, ...";
const kinds = ["json", "csv", "parquet"];
const fileEnding = /\.(jsonl?|csv|tsv|parquet|txt)(\.gz)?$/i;
const entryKeys = [
  ...["path", "data_files", "ds_type", "type", "field", "roles_to_train", ...chatKeys],
  ...["split", "name", "columns", "task"],
  ...[...Object.keys(messageParts), ...Object.keys(refused), ...Object.keys(ignored)],
];

/**
 * The data sets of a list that holds names and entries. What an entry says and Lockstep does not do is
 * refused or warned of; what comes back reads as itself.
 *
 * @param key the configuration's, for messages
 * @throws E_CONFIG_INVALID, E_CONFIG_UNKNOWN_KEY, E_CONFIG_UNSUPPORTED
 */
export function readDatasetList(
  list: readonly unknown[],
  { key, where, warnings }: { key: string; where: string; warnings: string[] },
): (string | DatasetEntry)[] {
  return list.map((value, index) => {
    if (typeof value === "string") return value;
    const place = `${key}[${index}]`;
    const warn = (text: string): void => {
      warnings.push(`${where}: ${place}.${text}`);
    };
    return new EntryReader(value as Record<string, unknown>, { key: place, where, warn }).read();
  });
}

/** What a data set is called in one word. */
export const datasetName = (dataset: string | DatasetEntry): string =>
  typeof dataset === "string" ? dataset : (dataset.data_files?.join(" and ") ?? dataset.path);

class EntryReader {
  /** Without what holds null, which says nothing. */
  readonly #given: Map<string, unknown>;
  readonly #place: EntryPlace;

  constructor(value: Readonly<Record<string, unknown>>, place: EntryPlace) {
    this.#given = new Map(Object.entries(value).filter(([, each]) => each !== null));
    this.#place = place;
  }

  read(): DatasetEntry {
    this.#checkNames();
    const { where } = this.#place;
    const path = this.#text("path");
    if (path === undefined) {
      const key = `${this.#place.key}.path`;
      throw new LockstepError("E_CONFIG_INVALID", { key, expected: "text", got: "nothing", where });
    }
    const files = this.#texts("data_files");
    if (files === undefined && kinds.includes(path)) {
      throw this.#unsupported("path", path, "data_files has to name the files");
    }
    const entry: Record<string, unknown> = {
      path,
      ...(files === undefined ? {} : { data_files: files }),
      ...this.#parts(files ?? [path]),
      ...this.#type(),
    };
    this.#checkKind(
      files ?? [path],
      files !== undefined && kinds.includes(path) ? path : undefined,
    );
    const type = entry["type"];
    const typeName = typeof type === "object" ? "instructions" : (type as string | undefined);
    const read = {
      field: this.#text("field"),
      field_messages: this.#text("field_messages"),
      field_system: this.#text("field_system"),
      field_tools: this.#text("field_tools"),
      message_property_mappings: this.#messageParts(),
      message_field_training: this.#text("message_field_training"),
      roles: this.#roles(),
      drop_system_message: this.#boolean("drop_system_message"),
    };
    this.#checkRolesToTrain(read.roles);
    const known = typeName === undefined ? [] : (keysOfType[typeName] ?? []);
    for (const [key, value] of Object.entries(read)) {
      if (value === undefined) continue;
      if (known.includes(key)) entry[key] ??= value;
      else if (typeName === undefined) {
        throw this.#unsupported(key, value, `without a type (${typeNames}) it says nothing`);
      } else {
        const shown = typeName === "instructions" ? "a type that is a mapping" : `type ${typeName}`;
        this.#place.warn(`${key} has no effect: ${shown} does not read it`);
      }
    }
    return Object.freeze(entry) as unknown as DatasetEntry;
  }

  #checkNames(): void {
    for (const [key, value] of this.#given) {
      const full = `${this.#place.key}.${key}`;
      if (!entryKeys.includes(key)) {
        const nearest = nearestName(key, entryKeys) ?? "";
        const { where } = this.#place;
        throw new LockstepError("E_CONFIG_UNKNOWN_KEY", { key: full, where, nearest });
      }
      const [allowed, reason] = refused[key] ?? [];
      if (allowed !== undefined && !allowed.some((each) => same(each, value))) {
        throw this.#unsupported(key, value, reason ?? "");
      }
      const [standard, why] = ignored[key] ?? [];
      if (why !== undefined && !same(standard, value)) {
        this.#place.warn(`${key} has no effect: ${why}`);
      }
    }
  }

  /** What of a directory is read, and what its columns are called. */
  #parts(paths: readonly string[]): Partial<DatasetEntry> {
    const isFile = paths.some((path) => fileEnding.test(path));
    const split = this.#text("split");
    if (split !== undefined && !/^\w+(\.\w+)*(\[:\d+\])?$/.test(split)) {
      const hint = "a split is a name, or its first rows such as train[:100]";
      throw this.#unsupported("split", split, hint);
    }
    if (isFile && split !== undefined && !/^train\b/.test(split)) {
      throw this.#unsupported("split", split, "a file has the split train alone");
    }
    const name = this.#text("name");
    if (isFile && name !== undefined) {
      throw this.#unsupported("name", name, "it is a subset of a directory, and a file has none");
    }
    const columns = this.#mapping("columns");
    const isOfWeight = Object.keys(columns ?? {}).every((name) => name === "weight");
    if (columns !== undefined && !isOfWeight && this.#given.has("type")) {
      const hint = "type says what the columns are called; leave one of them out";
      throw this.#unsupported("columns", columns, hint);
    }
    const key = `${this.#place.key}.columns`;
    const task = this.#text("task");
    return {
      ...(task === undefined ? {} : { task }),
      ...(split === undefined ? {} : { split }),
      ...(name === undefined ? {} : { name }),
      ...(columns === undefined ? {} : { columns: readColumns(columns, { ...this.#place, key }) }),
    };
  }

  /** The type, and what an older name of one says besides. */
  #type(): Partial<DatasetEntry> {
    const type = this.#given.get("type");
    if (type === undefined) return {};
    if (typeof type === "object" && !Array.isArray(type)) {
      const key = `${this.#place.key}.type`;
      const form = readInstructionForm(type as Record<string, unknown>, { ...this.#place, key });
      return { type: form };
    }
    if (type === "completion" || type === "alpaca" || type === "chat_template") return { type };
    if (type === "sharegpt") {
      this.#place.warn("type sharegpt is read as chat_template: the model's own template is used");
      const mappings = { role: "from", content: "value", ...this.#messageParts() };
      const messages = this.#text("field_messages") ?? "conversations";
      return {
        type: "chat_template",
        field_messages: messages,
        message_property_mappings: mappings,
      };
    }
    const hint =
      type === "input_output"
        ? "write the rows as prompt and completion, or as messages with a weight"
        : `known are ${typeNames}; a mapping with field_instruction, field_input, field_output, format and no_input_format says how others look`;
    throw this.#unsupported("type", type, hint);
  }

  /** The kind of file that is said has to be the one that its name says: readers go by the name. */
  #checkKind(files: readonly string[], ofPath: string | undefined): void {
    const said = this.#text("ds_type") ?? ofPath;
    if (said !== undefined && !kinds.includes(said)) {
      const hint = `files are ${kinds.join(", ")}; a line of text is a row {"text": ...} of JSON`;
      throw this.#unsupported("ds_type", said, hint);
    }
    for (const file of files) {
      const name = file.replace(/\.gz$/, "");
      const ending = /\.(\w+)$/.exec(name)?.[1] ?? "";
      if (ending === "txt") {
        const hint =
          'a text file is one text here and a row a line in axolotl; write a row {"text": ...} of JSON a line, or dataset: FILE.txt';
        throw this.#unsupported("path", file, hint);
      }
      const endings = { json: ["json", "jsonl"], csv: ["csv"], parquet: ["parquet"] }[said ?? ""];
      // A directory's files are read by their own endings.
      if (endings === undefined || ending === "" || endings.includes(ending)) continue;
      throw this.#unsupported("ds_type", said, `${file} is read by its ending, .${ending}`);
    }
  }

  #messageParts(): Readonly<Record<string, string>> | undefined {
    const mappings = this.#names("message_property_mappings");
    const older = Object.entries(messageParts).flatMap(([key, part]): [string, string][] => {
      const name = this.#text(key);
      return name === undefined ? [] : [[part, name]];
    });
    if (mappings === undefined && older.length === 0) return undefined;
    return Object.freeze({ ...Object.fromEntries(older), ...mappings });
  }

  #roles(): Readonly<Record<string, readonly string[]>> | undefined {
    const roles = this.#mapping("roles");
    if (roles === undefined) return undefined;
    return Object.freeze(
      Object.fromEntries(
        Object.entries(roles).map(([role, names]) => {
          const list = typeof names === "string" ? [names] : names;
          if (!isTexts(list)) throw this.#invalid(`roles.${role}`, "a list of text", names);
          return [role, list];
        }),
      ),
    );
  }

  #checkRolesToTrain(roles: Readonly<Record<string, readonly string[]>> | undefined): void {
    const trained = this.#texts("roles_to_train");
    if (trained === undefined) return;
    const answers = ["assistant", ...(roles === undefined ? ["gpt"] : (roles["assistant"] ?? []))];
    if (trained.length > 0 && trained.every((role) => answers.includes(role))) return;
    throw this.#unsupported("roles_to_train", trained, "what the assistant says is learnt");
  }

  #text(key: string): string | undefined {
    const value = this.#given.get(key);
    if (value === undefined || (typeof value === "string" && value !== "")) return value;
    throw this.#invalid(key, "text", value);
  }

  #texts(key: string): readonly string[] | undefined {
    const value = this.#given.get(key);
    const list = typeof value === "string" ? [value] : value;
    if (list === undefined || isTexts(list)) return list;
    throw this.#invalid(key, "text, or a list of text", value);
  }

  #boolean(key: string): boolean | undefined {
    const value = this.#given.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.#invalid(key, "true or false", value);
  }

  #mapping(key: string): Readonly<Record<string, unknown>> | undefined {
    const value = this.#given.get(key);
    if (value === undefined) return undefined;
    if (typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
    throw this.#invalid(key, "a mapping", value);
  }

  #names(key: string): Readonly<Record<string, string>> | undefined {
    const mapping = this.#mapping(key);
    for (const [name, value] of Object.entries(mapping ?? {})) {
      if (typeof value !== "string") throw this.#invalid(`${key}.${name}`, "text", value);
    }
    return mapping as Readonly<Record<string, string>> | undefined;
  }

  #invalid(key: string, expected: string, value: unknown): LockstepError {
    const full = `${this.#place.key}.${key}`;
    const { where } = this.#place;
    return new LockstepError("E_CONFIG_INVALID", { key: full, expected, got: show(value), where });
  }

  #unsupported(key: string, value: unknown, reason: string): LockstepError {
    const full = `${this.#place.key}.${key}`;
    const { where } = this.#place;
    return new LockstepError("E_CONFIG_UNSUPPORTED", {
      key: full,
      value: show(value),
      reason,
      where,
    });
  }
}

const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === "string");
