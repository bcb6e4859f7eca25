import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type ColumnMapping, type DatasetEntry, datasetName } from "#lib/config/index";
import { likelyName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import { entrySources } from "./dataset-entries.js";
import { builtInDatasets } from "./datasets/index.js";
import type { DataSource } from "./examples.js";
import type { DatasetFormat } from "./formats/index.js";
import { dataExtension, dataExtensions } from "./readers/index.js";
import { parseSplit } from "./sources/index.js";
import { isMissingFile, isRecord, maxModelTextBytes, readTextFile } from "./files.js";

/** LLaMA-Factory's index of a directory of data sets. */
const datasetInfoFileName = "dataset_info.json";

/** Stands for a part of an example that LLaMA-Factory does not read: no column has this name. */
const noColumn = "\0";
/** A map: names of what every object has are none of these. */
const formats: ReadonlyMap<unknown, DatasetFormat> = new Map([
  ["alpaca", "alpaca"],
  ["sharegpt", "sharegpt"],
  ["openai", "messages"],
]);
const columnKeys = [
  ...["prompt", "query", "response", "history", "messages", "system", "tools"],
  ...["chosen", "rejected"],
  // Not of LLaMA-Factory.
  ...["weight", "margin"],
];
const tagKeys = [
  "role_tag",
  "content_tag",
  "user_tag",
  "assistant_tag",
  "observation_tag",
  "function_tag",
  "system_tag",
];
const hubKeys = ["hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"];
/** `revision` is of a repository on a hub: a local directory has none. */
const entryKeys = [
  ...hubKeys,
  "file_name",
  "formatting",
  "ranking",
  "subset",
  "revision",
  "folder",
  "split",
  "num_samples",
  "columns",
  "tags",
];

/** The entries of a directory's `dataset_info.json`, read when they are asked for. */
export class DatasetInfo {
  readonly #directory: string;
  readonly #file: string;
  readonly #entries: Readonly<Record<string, unknown>>;

  private constructor(directory: string, entries: Readonly<Record<string, unknown>>) {
    this.#directory = directory;
    this.#file = join(directory, datasetInfoFileName);
    this.#entries = entries;
  }

  /**
   * Opens the index of a directory, undefined where there is none.
   *
   * @throws E_DATASET_INFO where it is not a JSON object, E_DATA_TOO_LARGE
   */
  static async open(directory: string): Promise<DatasetInfo | undefined> {
    const file = join(directory, datasetInfoFileName);
    let text: string;
    try {
      text = await readTextFile(file, {
        what: "index of data sets",
        limitBytes: maxModelTextBytes,
      });
    } catch (error) {
      if (error instanceof LockstepError && error.code === "E_FILE_NOT_FOUND") return undefined;
      throw error;
    }
    let entries: unknown;
    try {
      entries = parseJson(text);
    } catch (cause) {
      const problem = `it is not JSON (${String(cause)})`;
      throw new LockstepError("E_DATASET_INFO", { file, problem }, { cause });
    }
    if (!isRecord(entries)) {
      const problem = "it is not an object of data sets by name";
      throw new LockstepError("E_DATASET_INFO", { file, problem });
    }
    return new DatasetInfo(directory, entries);
  }

  names(): readonly string[] {
    return Object.keys(this.#entries);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#entries, name);
  }

  /** @throws E_DATASET_INFO where there is no such entry, or one that cannot be used */
  get(name: string): DataSource {
    if (!this.has(name)) {
      this.#fail(`it has no data set ${JSON.stringify(name)}${meant(name, this.names())}`);
    }
    const entry = this.#entries[name];
    const fail = (problem: string): never => this.#fail(`${JSON.stringify(name)}: ${problem}`);
    if (!isRecord(entry)) return fail("it is not an object");
    for (const key of Object.keys(entry)) {
      if (!entryKeys.includes(key)) {
        fail(`unknown key ${key}${meant(key, entryKeys)}`);
      }
    }
    const fileName = entry["file_name"];
    if (fileName === undefined) {
      const hub = hubKeys.find((key) => entry[key] !== undefined);
      if (hub === undefined) return fail("it has no file_name");
      return fail(
        `its ${hub} is ${JSON.stringify(entry[hub])}, and Lockstep downloads nothing: save the data set to a file and name it as file_name`,
      );
    }
    if (typeof fileName !== "string" || fileName === "") return fail("file_name is not text");
    const isRanked = entry["ranking"] ?? false;
    if (typeof isRanked !== "boolean") fail("ranking is not true or false");
    const said = entry["split"] ?? "train";
    const split = typeof said === "string" ? parseSplit(said) : undefined;
    if (split === undefined) {
      fail(`split is ${JSON.stringify(said)}, and is a name, or its first rows as train[:100]`);
    }
    const [folder, subset] = ["folder", "subset"].map((key) => {
      const value = entry[key] ?? undefined;
      if (value === undefined || (typeof value === "string" && value !== "")) return value;
      return fail(`${key} is not text`);
    });
    const numSamples = entry["num_samples"] ?? undefined;
    if (numSamples !== undefined && !(Number.isSafeInteger(numSamples) && Number(numSamples) > 0)) {
      fail(`num_samples is ${JSON.stringify(numSamples)}, not a whole number of at least 1`);
    }
    const formatting = entry["formatting"] ?? "alpaca";
    const format = formats.get(formatting);
    if (format === undefined) {
      return fail(
        `formatting is ${JSON.stringify(formatting)}, not one of ${[...formats.keys()].join(", ")}`,
      );
    }
    const columns = readNames(entry["columns"], "columns", columnKeys, fail);
    const tags = readNames(entry["tags"], "tags", tagKeys, fail);
    if (format === "messages" && tags !== undefined) {
      fail("tags are for formatting: sharegpt; those of openai are fixed");
    }
    const ofPairs = ["chosen", "rejected", "margin"].find((key) => columns?.[key] !== undefined);
    if (ofPairs !== undefined && isRanked === false) {
      fail(`columns names ${ofPairs}, and ranking is not true`);
    }
    if (format === "alpaca" && columns !== undefined && columns.prompt === undefined) {
      fail("columns names no prompt");
    }
    const isFile = dataExtensions.includes(dataExtension(fileName));
    if (isFile && split !== undefined && split.name !== "train") {
      fail(`split is ${JSON.stringify(said)}, and a file has the split "train" alone`);
    }
    if (isFile && (subset ?? folder) !== undefined) {
      fail("subset and folder are parts of a directory, and file_name is a file");
    }
    const source = resolve(this.#directory, fileName, folder ?? "");
    const maxExamples = Math.min(Number(numSamples ?? Infinity), split?.maxExamples ?? Infinity);
    const part = {
      ...(Number.isFinite(maxExamples) ? { maxExamples } : {}),
      ...(split === undefined || (entry["split"] ?? null) === null ? {} : { split: split.name }),
      ...(subset === undefined ? {} : { subset }),
    };
    if (isRanked === true) {
      const { chosen, rejected } = columns ?? {};
      if (columns === undefined || chosen === undefined || rejected === undefined) {
        return fail("columns names no chosen and rejected, and ranking is true");
      }
      return {
        ...{ source, format: "preference" },
        prompts: format as NonNullable<DataSource["prompts"]>,
        columns: {
          ...{ query: noColumn, history: noColumn, system: noColumn, tools: noColumn },
          margin: noColumn,
          prompt: "instruction",
          messages: format === "messages" ? "messages" : "conversations",
          ...columns,
        },
        ...(tags === undefined ? {} : { tags }),
        ...part,
      };
    }
    if (format === "alpaca" && columns?.prompt !== undefined && columns.response === undefined) {
      // Text for pre-training is an Alpaca example with a prompt alone.
      const { prompt: text, weight } = columns;
      const named = weight === undefined ? { text } : { text, weight };
      return { source, format: "text", columns: named, ...part };
    }
    return {
      source,
      format,
      columns: {
        // Where columns are given, those that are not named are not read; some never are.
        ...(columns === undefined ? {} : { query: noColumn }),
        ...{ history: noColumn, system: noColumn, tools: noColumn },
        ...columns,
      },
      ...(tags === undefined ? {} : { tags }),
      ...part,
    };
  }

  #fail(problem: string): never {
    throw new LockstepError("E_DATASET_INFO", { file: this.#file, problem });
  }
}

/** A mapping of known keys to names; null values say nothing. */
function readNames(
  value: unknown,
  what: string,
  known: readonly string[],
  fail: (problem: string) => never,
): Readonly<Record<string, string>> | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isRecord(value)) return fail(`${what} is not an object`);
  const names: [string, string][] = [];
  for (const [key, name] of Object.entries(value)) {
    if (name === null) continue;
    if (["images", "videos", "audios"].includes(key)) {
      fail(`${what} names ${key}, and Lockstep trains on text`);
    }
    if (key === "kto_tag") {
      fail(`${what} names kto_tag, which is for KTO: not in this version`);
    }
    if (!known.includes(key)) {
      fail(`unknown key ${key} in ${what}${meant(key, known)}`);
    }
    if (typeof name !== "string" || name === "") fail(`${key} in ${what} is not text`);
    names.push([key, String(name)]);
  }
  return Object.fromEntries(names);
}

interface FindSourcesOptions {
  /** Whose `dataset_info.json` is asked. */
  readonly datasetDir: string;
  /** Column of plain texts, where one is named. */
  readonly textField?: string | null;
  /** What the key `columns` says. */
  readonly columns?: ColumnMapping | null;
  /** Whether the model continues texts, so that a named column of texts is learnt whole. */
  readonly isTextModel?: boolean;
  /** Examples of each source that are read at most. */
  readonly maxExamples?: number | null;
}

/**
 * What names of a configuration stand for: a built-in data set, an entry of `dataset_info.json`, or a
 * path, in this order. An entry of axolotl's form stands for its files.
 *
 * @throws E_DATASET_INFO, E_CONFIG_CONFLICT where `columns` and a data set both say what columns hold
 */
export async function findSources(
  names: readonly (string | DatasetEntry)[],
  options: FindSourcesOptions,
): Promise<DataSource[]> {
  const { datasetDir, textField = null, columns = null, maxExamples = null } = options;
  const info = await DatasetInfo.open(datasetDir);
  const ofColumn = {
    ...(textField === null || textField === "text" ? {} : { columns: { text: textField } }),
    ...(textField !== null && options.isTextModel === true ? { prefersText: true } : {}),
    ...(columns === null ? {} : { mapping: columns }),
  };
  const { weight, ...others } = columns ?? {};
  const refuseColumns = (name: string, what: string, isWeightKnown = true): void => {
    if (Object.keys(others).length === 0 && (weight === undefined || isWeightKnown)) return;
    const reason = `${what} says itself what the columns of ${name} hold`;
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: "columns and dataset", reason });
  };
  /** Whatever says what columns hold, it says nothing of weights. */
  const withWeight = (source: DataSource): DataSource =>
    weight === undefined ? source : { ...source, mapping: { weight, ...source.mapping } };
  const find = async (name: string | DatasetEntry): Promise<DataSource[]> => {
    if (typeof name !== "string") {
      if (name.type === undefined) return entrySources(name, ofColumn);
      refuseColumns(datasetName(name), "its type");
      return entrySources(name, ofColumn).map(withWeight);
    }
    const isBuiltIn = Object.hasOwn(builtInDatasets, name);
    if (info !== undefined && !isBuiltIn && (info.has(name) || (await isSlip(name)))) {
      refuseColumns(name, datasetInfoFileName);
      return [withWeight(info.get(name))];
    }
    if (isBuiltIn) refuseColumns(name, "a built-in data set", false);
    return [{ source: name, ...ofColumn }];
  };
  const sources: DataSource[] = [];
  for (const source of (await Promise.all(names.map(find))).flat()) {
    const limit = Math.min(
      source.maxExamples ?? Number.POSITIVE_INFINITY,
      maxExamples ?? Number.POSITIVE_INFINITY,
    );
    sources.push(Number.isFinite(limit) ? { ...source, maxExamples: limit } : source);
  }
  return sources;
}

/** A bare word that is no file either: beside an index it is a slip in one of its names. */
async function isSlip(name: string): Promise<boolean> {
  if (!/^[\w.-]+$/.test(name) || dataExtensions.includes(dataExtension(name))) return false;
  try {
    await stat(name);
    return false;
  } catch (error) {
    if (isMissingFile(error)) return true;
    throw error;
  }
}

/** The name that a slip of the hand meant, else those that there are. */
function meant(name: string, known: readonly string[]): string {
  const near = likelyName(name, known);
  if (near !== undefined) return ` (did you mean ${near}?)`;
  return known.length === 0 ? "" : ` (there are ${known.slice(0, 40).join(", ")})`;
}
