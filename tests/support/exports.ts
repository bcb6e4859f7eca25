import { resolveImport, withoutComments } from "./source-files.js";

/** A name that a file gives to others. */
interface Exported {
  readonly name: string;
  /** Where a re-exported name comes from: a file, and its name there ("*": all of its names). */
  readonly from?: { readonly path: string; readonly name: string };
}

/** A name that a file takes of another one; "*" is all of them. */
export interface Taken {
  readonly path: string;
  readonly name: string;
}

const nameList = (list: string): { readonly name: string; readonly alias: string }[] =>
  list.split(",").flatMap((entry) => {
    const [name = "", alias = name] = entry
      .trim()
      .replace(/^type\s+/, "")
      .split(/\s+as\s+/);
    return name === "" ? [] : [{ name, alias }];
  });

/** What a TypeScript source exports. */
export function exportsOf(path: string, text: string): readonly Exported[] {
  const code = withoutComments(text);
  const found: Exported[] = [];
  const declared =
    /^export\s+(?:declare\s+)?(?:default\s+)?(?:abstract\s+)?(?:async\s+)?(?:const|let|function\*?|class|interface|type|enum)\s+(\w+)/gm;
  for (const [whole, name = ""] of code.matchAll(declared)) {
    found.push({ name: /\bdefault\b/.test(whole) ? "default" : name });
  }
  const destructured = /^export\s+const\s+[{[]([^}\]]*)[}\]]\s*=/gm;
  for (const [, list = ""] of code.matchAll(destructured)) {
    for (const name of list.split(",")) found.push({ name: name.trim().replace(/^.*:\s*/, "") });
  }
  if (/^export\s+default\s+(?!(?:async\s+)?(?:function|class)\s+\w)/m.test(code)) {
    found.push({ name: "default" });
  }
  const lists = /^export\s+(?:type\s+)?\{([^}]*)\}(?:\s*from\s*["']([^"']+)["'])?/gm;
  for (const [, list = "", specifier] of code.matchAll(lists)) {
    const source = specifier === undefined ? undefined : resolveImport(path, specifier);
    for (const { name, alias } of nameList(list)) {
      found.push(
        source === undefined ? { name: alias } : { name: alias, from: { path: source, name } },
      );
    }
  }
  for (const [, specifier = ""] of code.matchAll(/^export\s+\*\s+from\s*["']([^"']+)["']/gm)) {
    const source = resolveImport(path, specifier);
    if (source !== undefined) found.push({ name: "*", from: { path: source, name: "*" } });
  }
  return found;
}

/** What a source takes of others of ours, re-exports left out. */
export function takenBy(path: string, text: string): readonly Taken[] {
  const code = withoutComments(text);
  const found: Taken[] = [];
  const take = (specifier: string, names: readonly string[]): void => {
    const source = resolveImport(path, specifier);
    if (source !== undefined) found.push(...names.map((name) => ({ path: source, name })));
  };
  const statement = /^import\s+(?:type\s+)?([\w*${}\s,]+?)\s+from\s+["']([^"']+)["']/gm;
  for (const [, clause = "", specifier = ""] of code.matchAll(statement)) {
    const list = /\{([^}]*)\}/.exec(clause)?.[1];
    const names = list === undefined ? [] : nameList(list).map(({ name }) => name);
    if (/\*\s+as\b/.test(clause)) names.push("*");
    if (/^\w+/.test(clause)) names.push("default");
    take(specifier, names);
  }
  // const { a, b: c } = await import("x"), (await import("x")).a, import("x").A in a type; else all of it.
  const dynamic =
    /(?:\{([^{}]*)\}\s*=\s*\(?\s*)?(?:await\s+)?\b(?:import|loadBuilt|import\.meta\.resolve)\(\s*["']([^"']+)["']\s*\)(?:\)?\.(\w+))?/g;
  for (const [, list, specifier = "", member] of code.matchAll(dynamic)) {
    const names =
      list !== undefined
        ? nameList(list.replace(/:\s*\w+/g, "")).map(({ name }) => name)
        : [member ?? "*"];
    take(specifier.startsWith("lib/") ? `#${specifier}` : specifier, names);
  }
  return found;
}
