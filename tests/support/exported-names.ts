import { resolveImport, withoutComments } from "./source-files.js";

const identifier = "[\\w$]+";

/** The names that a source exports, those that it passes on one by one included. */
export function exportedNames(text: string): readonly string[] {
  const code = withoutComments(text);
  const declared = code.matchAll(
    /^export (?:declare )?(?:abstract )?(?:async )?(?:const|let|function\*?|class|interface|type|enum) ([\w$]+)/gm,
  );
  const listed = code.matchAll(/^export (?:type )?\{([^}]*)\}/gm);
  return [
    ...[...declared].map(([, name = ""]) => name),
    ...[...listed].flatMap(([, names = ""]) => namesIn(names).map(({ outside }) => outside)),
  ];
}

/** The sources all of whose exports a source passes on. */
export const passedOn = (from: string, text: string): readonly string[] =>
  [...withoutComments(text).matchAll(/^export \* from "([^"]+)"/gm)].flatMap(
    ([, specifier = ""]) => resolveImport(from, specifier) ?? [],
  );

/** What a source takes of other sources of ours, by the path of the source; `*` for all that it has. */
export function takenNames(from: string, text: string): ReadonlyMap<string, ReadonlySet<string>> {
  const taken = new Map<string, Set<string>>();
  const take = (specifier: string, names: readonly string[]): void => {
    const target = resolveImport(from, specifier);
    if (target === undefined) return;
    const known = taken.get(target) ?? new Set();
    for (const name of names) known.add(name);
    taken.set(target, known);
  };
  const code = withoutComments(text);
  const inside = (names: string): string[] => namesIn(names).map((name) => name.inside);
  for (const [, names = "", specifier = ""] of code.matchAll(
    /^(?:import|export) (?:type )?(?:[\w$]+, )?\{([^}]*)\} from "([^"]+)"/gm,
  )) {
    take(specifier, inside(names));
  }
  for (const [, specifier = ""] of code.matchAll(
    /^(?:import|export) (?:type )?\* as [\w$]+ from "([^"]+)"/gm,
  )) {
    take(specifier, ["*"]);
  }
  for (const [, names = "", specifier = ""] of code.matchAll(
    /\{([^{}]*)\}\s*=\s*\(?await import\(\s*"([^"]+)"/g,
  )) {
    take(specifier, inside(names.replaceAll(":", " as ")));
  }
  for (const [, specifier = "", name = ""] of code.matchAll(
    new RegExp(`import\\(\\s*"([^"]+)"\\s*\\)\\)?\\.(${identifier})`, "g"),
  )) {
    take(specifier, [name]);
  }
  return taken;
}

/** `a, type B, c as d`: names in the module that has them, and outside. */
function namesIn(list: string): { readonly inside: string; readonly outside: string }[] {
  return list
    .split(",")
    .map((each) => each.trim().replace(/^type /, ""))
    .filter((each) => each !== "")
    .map((each) => {
      const [inside = "", outside = inside] = each.split(/\s+as\s+/);
      return { inside, outside };
    });
}
