import { join } from "node:path";
import { alpacaForm, type DatasetEntry } from "#lib/config/index";
import type { DataSource } from "./examples.js";
import type { ChatForm } from "./formats/index.js";
import { parseSplit } from "./sources/index.js";

/** Kinds of files, which axolotl takes as a path beside data_files. */
const kinds = ["json", "csv", "parquet"];
/** axolotl's roles where an entry names none. */
const usualRoles: Readonly<Record<string, readonly string[]>> = {
  user: ["human", "user"],
  assistant: ["gpt", "assistant"],
};

/** What is known of examples that no type describes. */
type Untyped = Pick<DataSource, "columns" | "mapping" | "prefersText">;

/** The files of an entry, each with what its examples look like. */
export function entrySources(entry: DatasetEntry, untyped: Untyped): DataSource[] {
  const { path, data_files: files } = entry;
  const sources = (files ?? [path]).map((file) =>
    files === undefined || kinds.includes(path) ? file : join(path, file),
  );
  const form = formOf(entry, untyped);
  const { name, columns } = entry;
  const split = entry.split === undefined ? undefined : parseSplit(entry.split);
  const parts = {
    ...(split === undefined ? {} : { split: split.name }),
    ...(split?.maxExamples === undefined ? {} : { maxExamples: split.maxExamples }),
    ...(name === undefined ? {} : { subset: name }),
    ...(columns === undefined ? {} : { mapping: columns }),
  };
  return sources.map((source) => ({ source, ...form, ...parts }));
}

function formOf(entry: DatasetEntry, untyped: Untyped): Omit<DataSource, "source"> {
  const { type } = entry;
  if (type === undefined) return untyped;
  if (type === "completion") return { format: "text", columns: { text: entry.field ?? "text" } };
  if (type === "chat_template") {
    return {
      format: "messages",
      chat: chatForm(entry),
      columns: {
        messages: entry.field_messages ?? "messages",
        system: entry.field_system ?? "system",
        tools: entry.field_tools ?? "tools",
      },
    };
  }
  return {
    format: "prompt-completion",
    instructions: type === "alpaca" ? alpacaForm : type,
  };
}

function chatForm(entry: DatasetEntry): ChatForm {
  const roles = Object.entries(entry.roles ?? usualRoles);
  return {
    parts: { role: "role", content: "content", ...entry.message_property_mappings },
    roles: new Map(roles.flatMap(([role, names]) => names.map((name) => [name, role]))),
    ...(entry.message_field_training === undefined
      ? {}
      : { learntPart: entry.message_field_training }),
    dropsSystem: entry.drop_system_message ?? false,
  };
}
