import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { isMissingFile } from "#lib/data/files";

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

function nameExpression(part: string): RegExp {
  const escaped = part.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("*", "[^/]*").replaceAll("?", "[^/]")}$`);
}

/** A pattern over whole paths, as the README.md of a data set writes them. */
export function patternExpression(pattern: string): RegExp {
  const parts = pattern.split("/").map((part) => {
    if (part === "**") return "**";
    const escaped = part.replace(/\[[^\]]+\]|[.+^${}()|[\]\\]/g, (found) =>
      found.length > 1 ? found.replace(/^\[!/, "[^") : `\\${found}`,
    );
    return escaped.replaceAll("*", "[^/]*").replaceAll("?", "[^/]");
  });
  const last = parts.length - 1;
  const text = parts.map((part, i) => {
    if (part === "**") return i === last ? ".*" : "(?:[^/]+/)*";
    return i === last ? part : `${part}/`;
  });
  return new RegExp(`^${text.join("")}$`);
}
