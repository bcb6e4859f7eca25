import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { isMissingFile } from "#lib/data/files";

/**
 * The files that a path, a directory (its data files) or a pattern names, by name. In a pattern `*`
 * stands for part of a name, `?` for one character, `**` for any directories.
 *
 * @param isData whether a file of a directory counts
 * @throws E_DATASET_UNKNOWN
 */
export async function dataFiles(
  source: string,
  options: { isData: (name: string) => boolean; known: readonly string[] },
): Promise<string[]> {
  const unknown = (): LockstepError =>
    new LockstepError("E_DATASET_UNKNOWN", { dataset: source, known: options.known });
  try {
    if (/[*?]/.test(source)) {
      const files = await matchPattern(source);
      if (files.length === 0) throw unknown();
      return files;
    }
    if ((await stat(source)).isDirectory()) {
      const names = (await readdir(source)).filter(options.isData).sort();
      if (names.length === 0) throw unknown();
      return names.map((name) => join(source, name));
    }
    return [source];
  } catch (error) {
    if (isMissingFile(error)) throw unknown();
    throw error;
  }
}

async function matchPattern(pattern: string): Promise<string[]> {
  const parts = pattern.split("/");
  const found: string[] = [];
  const walk = async (directory: string, rest: readonly string[]): Promise<void> => {
    const [part, ...below] = rest;
    if (part === undefined) return;
    const path = (name: string): string => (directory === "" ? name : join(directory, name));
    if (part === "**") await walk(directory, below);
    else if (!/[*?]/.test(part)) {
      const next = part === "" ? "/" : path(part);
      if (below.length > 0) return walk(next, below);
      if (await isFile(next)) found.push(next);
      return;
    }
    const expression = nameExpression(part);
    const entries = await readdir(directory === "" ? "." : directory, {
      withFileTypes: true,
    }).catch((error: unknown) => {
      if (isMissingFile(error)) return [];
      throw error;
    });
    for (const entry of entries) {
      if (part === "**") {
        if (entry.isDirectory()) await walk(path(entry.name), rest);
      } else if (expression.test(entry.name)) {
        if (below.length > 0) await walk(path(entry.name), below);
        else if (await isFile(path(entry.name))) found.push(path(entry.name));
      }
    }
  };
  await walk("", parts);
  return [...new Set(found)].sort();
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw error;
  }
}

function nameExpression(part: string): RegExp {
  const escaped = part.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("*", "[^/]*").replaceAll("?", "[^/]")}$`);
}
