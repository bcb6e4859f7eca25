import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { isMissingFile } from "#lib/data/files";
import { nameMatcher } from "./glob.js";

/**
 * What a pattern matches, by name. `*` stands for part of a name, `?` for one character, `**` for any
 * directories. A pipe is matched too: whoever opens it refuses it by name.
 */
export async function matchPattern(pattern: string): Promise<string[]> {
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
      if (await isNoDirectory(next)) found.push(next);
      return;
    }
    const isMeant = nameMatcher(part, { hasClasses: false });
    const entries = await readdir(directory === "" ? "." : directory, {
      withFileTypes: true,
    }).catch((error: unknown) => {
      if (isMissingFile(error)) return [];
      throw error;
    });
    for (const entry of entries) {
      if (part === "**") {
        if (entry.isDirectory()) await walk(path(entry.name), rest);
      } else if (isMeant(entry.name)) {
        if (below.length > 0) await walk(path(entry.name), below);
        else if (await isNoDirectory(path(entry.name))) found.push(path(entry.name));
      }
    }
  };
  await walk("", parts);
  return [...new Set(found)].sort();
}

async function isNoDirectory(path: string): Promise<boolean> {
  try {
    return !(await stat(path)).isDirectory();
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw error;
  }
}
