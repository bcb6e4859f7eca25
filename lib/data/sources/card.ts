import { join } from "node:path";
import { parse } from "yaml";
import { LockstepError } from "#lib/core/errors/index";
import { yamlDepthProblem } from "#lib/core/yaml-depth";
import { isRecord, maxModelTextBytes, readTextFile } from "#lib/data/files";

/** YAML at the head of a card: those of the largest data sets have some 300,000 characters. */
const maxHeadChars = 512 << 10;

/** A subset of a data set, as the `configs` of a hub's README.md describe it. */
export interface Subset {
  readonly name: string;
  readonly isDefault: boolean;
  /** Patterns of files by split; undefined: as their names tell. */
  readonly patterns: ReadonlyMap<string, readonly string[]> | undefined;
  /** Directory of its files where there are no patterns, relative to the data set's. */
  readonly directory: string;
}

/**
 * The subsets that the YAML at the head of a directory's README.md lists; none where there is none.
 *
 * @throws E_DATASET_DIRECTORY where that YAML cannot be used
 */
export async function readSubsets(directory: string): Promise<readonly Subset[]> {
  const file = join(directory, "README.md");
  let text: string;
  try {
    text = await readTextFile(file, { what: "data set card", limitBytes: maxModelTextBytes });
  } catch (error) {
    if (error instanceof LockstepError && error.code === "E_FILE_NOT_FOUND") return [];
    throw error;
  }
  const head = /^---[ \t]*\r?\n([\s\S]*?)\r?\n---[ \t]*(?:\r?\n|$)/.exec(text)?.[1];
  if (head === undefined || !/^configs\s*:/m.test(head)) return [];
  const fail = (problem: string): never => {
    throw new LockstepError("E_DATASET_DIRECTORY", { directory, problem: `README.md: ${problem}` });
  };
  if (head.length > maxHeadChars) {
    return fail(`its head has ${head.length} characters; at most ${maxHeadChars} are read`);
  }
  const tooDeep = yamlDepthProblem(head);
  if (tooDeep !== undefined) return fail(`of its head, ${tooDeep}`);
  let card: unknown;
  try {
    card = parse(head, { maxAliasCount: 16, prettyErrors: false });
  } catch (cause) {
    return fail(`its head is no YAML (${String(cause).split("\n")[0] ?? ""})`);
  }
  const configs = isRecord(card) ? card["configs"] : undefined;
  if (configs === null || configs === undefined) return [];
  if (!Array.isArray(configs)) return fail("configs is not a list");
  return configs.map((value: unknown, i) => {
    const place = `configs[${i}]`;
    if (!isRecord(value)) return fail(`${place} is not a mapping`);
    const { config_name: name = "default", data_dir: folder = "", default: isDefault } = value;
    if (typeof name !== "string" || typeof folder !== "string") {
      return fail(`config_name or data_dir of ${place} is not text`);
    }
    return {
      name,
      isDefault: isDefault === true || name === "default",
      patterns: readPatterns(value["data_files"], () =>
        fail(`data_files of ${name} says no files`),
      ),
      directory: folder,
    };
  });
}

/** A pattern, a list of them, or splits with a pattern or a list each. */
function readPatterns(value: unknown, fail: () => never): Subset["patterns"] {
  if (value === undefined || value === null) return undefined;
  const textsOf = (paths: unknown): string[] => {
    const list: unknown[] = Array.isArray(paths) ? paths : [paths];
    return list.map((path) => {
      if (typeof path !== "string" || path === "" || /^\w+:\/\//.test(path)) return fail();
      return path.replace(/^\.\//, "");
    });
  };
  const patterns = new Map<string, readonly string[]>();
  const add = (split: string, paths: unknown): void => {
    patterns.set(split, [...(patterns.get(split) ?? []), ...textsOf(paths)]);
  };
  if (isRecord(value)) for (const [split, paths] of Object.entries(value)) add(split, paths);
  else {
    for (const part of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (!isRecord(part)) add("train", part);
      else {
        const { split } = part;
        // YAML reads a split called 2021 as a number.
        if (typeof split !== "string" && typeof split !== "number") return fail();
        add(String(split), part["path"]);
      }
    }
  }
  return patterns.size === 0 ? fail() : patterns;
}
