import { importsOf, listSources, readSource, resolveImport } from "./source-files.js";

// Which keys of the configuration a command reads: declarations of the sources that its function reaches by
// name, and the properties of configurations that they take. Files are formatted, so that a declaration
// begins and ends at the first column.

interface Module {
  /** Text of each top-level declaration by its name. */
  readonly declarations: ReadonlyMap<string, string>;
  /** A name of this file, or one that it gives away, and where it comes from. */
  readonly imported: ReadonlyMap<string, readonly [file: string, name: string]>;
}

const modules = new Map<string, Module>();

function moduleOf(file: string): Module {
  const known = modules.get(file);
  if (known !== undefined) return known;
  const text = readSource(file)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");
  const declarations = new Map<string, string>();
  const begins =
    /^(?:export )?(?:default )?(?:async )?(?:function\*?|class|const|let|interface|type) +([\w$]+)/gm;
  const starts = [...text.matchAll(begins)];
  for (const [index, { 1: name = "", index: start }] of starts.entries()) {
    declarations.set(name, text.slice(start, starts[index + 1]?.index));
  }
  const imported = new Map<string, readonly [string, string]>();
  const lists = /^(?:import|export) (?:type )?(?:[\w$]+, )?\{([^}]*)\} from "([^"]+)"/gm;
  for (const [, names = "", specifier = ""] of text.matchAll(lists)) {
    const target = resolveImport(file, specifier);
    if (target === undefined) continue;
    for (const each of names.split(",")) {
      const [, from = "", to = from] =
        /^\s*(?:type )?([\w$]+)(?: as ([\w$]+))?\s*$/.exec(each) ?? [];
      if (from !== "") imported.set(to, [target, from]);
    }
  }
  const found = { declarations, imported };
  modules.set(file, found);
  return found;
}

const sources = new Set(listSources());

/** Follows a name through re-exports to its declaration. */
function declarationOf(file: string, name: string): readonly [string, string] | undefined {
  if (!sources.has(file)) return undefined;
  const { declarations, imported } = moduleOf(file);
  if (declarations.has(name)) return [file, name];
  const from = imported.get(name);
  return from === undefined ? undefined : declarationOf(...from);
}

const held = "(?:[\\w.]+\\.)?#?(?:config|asked|parsed|settled)";
const property = /(?:\b|#)(?:config|asked|parsed|settled)\.(\w+)/g;
const destructured = new RegExp(
  `\\{([^{}]*)\\}\\s*(?:=\\s*${held}\\b|:\\s*(?:Resolved|Parsed|Settled)Config\\b)`,
  "g",
);
const computed = /\bconfig\[`\$\{what\}_(\w+)`\]/g;

function keysIn(text: string): string[] {
  return [
    ...[...text.matchAll(property)].map(([, key = ""]) => key),
    ...[...text.matchAll(destructured)].flatMap(([, names = ""]) =>
      names.split(",").map((each) => each.split(/[:=]/, 1)[0]?.trim() ?? ""),
    ),
    ...[...text.matchAll(computed)].flatMap(([, what]) =>
      ["logging", "eval", "save"].map((kind) => `${kind}_${what}`),
    ),
  ];
}

/**
 * The names that a function and what it reaches read of configurations.
 *
 * @param ignored files whose reading is no acting upon: checks, and printing
 */
export function keysReadBy(
  file: string,
  name: string,
  ignored: readonly string[],
): ReadonlySet<string> {
  const read = new Set<string>();
  const seen = new Set<string>();
  const visit = (at: string, declared: string): void => {
    const found = declarationOf(at, declared);
    if (found === undefined || seen.has(found.join("#"))) return;
    seen.add(found.join("#"));
    const [place, own] = found;
    const text = moduleOf(place).declarations.get(own) ?? "";
    if (!ignored.includes(place)) for (const key of keysIn(text)) read.add(key);
    for (const word of new Set(text.match(/[A-Za-z_$][\w$]*/g))) visit(place, word);
    for (const { specifier, dynamic } of importsOf(text)) {
      const target = dynamic ? resolveImport(place, specifier) : undefined;
      if (target !== undefined && sources.has(target)) {
        for (const each of moduleOf(target).declarations.keys()) {
          if (new RegExp(`\\b${each}\\b`).test(text)) visit(target, each);
        }
      }
    }
  };
  visit(file, name);
  return read;
}
