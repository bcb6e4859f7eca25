import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { packageRoot } from "#lib/core/paths";

/** A module specifier in a source file. */
interface ImportedModule {
  readonly specifier: string;
  /** `import type`: gone at run time. */
  readonly typeOnly: boolean;
  /** `import("x")`: loaded when the code asks for it. */
  readonly dynamic: boolean;
}

const sourceFolders = [
  "bench",
  "cli",
  "coordinator",
  "dashboard",
  "grafana",
  "lib",
  "proto",
  "reducer",
  "run",
  "tests",
  "worker",
];

/** Paths, relative to the root, of all files below these folders whose names end like this. */
export function listFiles(folders: readonly string[], ending: string): readonly string[] {
  const found: string[] = [];
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(packageRoot, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        if (!["node_modules", "dist", "fixtures", ".venv"].includes(entry.name)) visit(path);
      } else if (entry.name.endsWith(ending)) {
        found.push(path);
      }
    }
  };
  for (const folder of folders) if (existsSync(join(packageRoot, folder))) visit(folder);
  return found.sort();
}

/** Every TypeScript source, generated declarations left out. */
export function listSources(): readonly string[] {
  return listFiles(sourceFolders, ".ts").filter((path) => !path.endsWith(".d.ts"));
}

export function readSource(path: string): string {
  return readFileSync(join(packageRoot, path), "utf8");
}

/**
 * The files of the repository: those that git tracks, or, in a copy without git, all that are not
 * ignored by name.
 */
export function listTracked(): readonly string[] {
  try {
    return execFileSync("git", ["ls-files", "-z"], {
      cwd: packageRoot,
      encoding: "utf8",
      maxBuffer: 1 << 26,
      stdio: ["ignore", "pipe", "ignore"],
    })
      .split("\0")
      .filter((path) => path !== "" && existsSync(join(packageRoot, path)));
  } catch {
    const skipped = new Set(["node_modules", "dist", "runs", ".git", ".venv"]);
    return readdirSync(packageRoot, { withFileTypes: true }).flatMap((entry) =>
      skipped.has(entry.name)
        ? []
        : entry.isDirectory()
          ? listFiles([entry.name], "")
          : [entry.name],
    );
  }
}

/** What a source imports. Reads text, so that it also sees what the compiler would drop. */
export function importsOf(text: string): readonly ImportedModule[] {
  const code = withoutComments(text);
  const found: ImportedModule[] = [];
  const statement =
    /^[ \t]*(import|export)\s+(?:(type)\s+)?(?:[\w*${}\s,]+?\s+from\s+)?["']([^"']+)["']/gm;
  for (const [whole, , type, specifier = ""] of code.matchAll(statement)) {
    // `import { type A, type B }` without a value is a type import too.
    const names = /\{([^}]*)\}/
      .exec(whole)?.[1]
      ?.split(",")
      .map((name) => name.trim());
    const onlyTypes =
      names !== undefined &&
      !/^\s*(?:import|export)\s+\w+\s*,/.test(whole) &&
      names.filter((name) => name !== "").every((name) => name.startsWith("type "));
    found.push({
      specifier,
      typeOnly: type !== undefined || (onlyTypes && names.some((name) => name !== "")),
      dynamic: false,
    });
  }
  for (const [, before = "", specifier = ""] of code.matchAll(
    /(\btypeof\s+)?\b(?:import|require)\(\s*["']([@#.\w][\w@./-]*)["']\s*\)/g,
  )) {
    found.push({ specifier, typeOnly: before !== "", dynamic: true });
  }
  return found;
}

export function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:"'`\w])\/\/.*$/gm, "$1");
}

/**
 * The source file that a specifier of ours means, relative to the root; undefined for a package.
 *
 * @param from path of the importing file
 */
export function resolveImport(from: string, specifier: string): string | undefined {
  const base = specifier.startsWith("#")
    ? specifier.slice(1)
    : specifier.startsWith(".")
      ? posix.join(posix.dirname(from), specifier).replace(/\.js$/, "")
      : undefined;
  if (base === undefined) return undefined;
  for (const ending of [".ts", ".d.ts", ".js", ""]) {
    if (existsSync(join(packageRoot, base + ending))) return base + ending;
  }
  return base;
}

/** The folder of the import table: `lib/graph`, `coordinator`. */
export function folderOf(path: string): string {
  const [top = "", second = ""] = path.split("/");
  return top === "lib" ? `lib/${second}` : top;
}

/** The name of the package in a specifier: `@scope/name/sub` gives `@scope/name`. */
export function packageOf(specifier: string): string {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : (parts[0] ?? "");
}

/** All sources that a file loads at run time by static imports, itself included. */
export function staticClosure(entry: string): ReadonlySet<string> {
  const seen = new Set<string>();
  const visit = (path: string): void => {
    if (seen.has(path) || !existsSync(join(packageRoot, path))) return;
    seen.add(path);
    for (const { specifier, typeOnly, dynamic } of importsOf(readSource(path))) {
      const target = resolveImport(path, specifier);
      if (target !== undefined && !typeOnly && !dynamic) visit(target);
    }
  };
  visit(entry);
  return seen;
}
