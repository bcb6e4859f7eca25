import assert from "node:assert/strict";
import { test } from "node:test";
import { exportedNames, passedOn, takenNames } from "#tests/support/exported-names";
import { folderOf, listSources, readSource } from "#tests/support/source-files";

/** What is exported for others than sources. */
const forOthers: readonly (readonly [path: string, reader: string])[] = [
  ["run/index.ts", "programs that import the package"],
];

const sources = listSources().filter((path) => !path.startsWith("lib/optim/assembly/"));

/** Exports by `path: name` that no other source takes. */
function untaken(texts: ReadonlyMap<string, string>): string[] {
  const taken = new Map<string, Set<string>>();
  const take = (path: string, names: ReadonlySet<string>): void => {
    taken.set(path, new Set([...(taken.get(path) ?? []), ...names]));
    // What is taken of a source that passes on all of another is taken of that one.
    for (const source of passedOn(path, texts.get(path) ?? "")) take(source, names);
  };
  for (const [from, text] of texts) {
    for (const [path, names] of takenNames(from, text)) take(path, names);
  }
  return [...texts].flatMap(([path, text]) => {
    const names = taken.get(path) ?? new Set<string>();
    if (names.has("*")) return [];
    return exportedNames(text)
      .filter((name) => !names.has(name))
      .map((name) => `${path}: ${name}`);
  });
}

test("the search finds exports that nobody imports, in each form", () => {
  const texts = new Map([
    [
      "lib/core/dtype.ts",
      "export const a = 1;\nexport type B = 2;\nconst c = 3;\nexport { c as d };\nexport function e() {}\n",
    ],
    [
      "lib/core/job.ts",
      'import { a, type B as Other } from "./dtype.js";\nexport { d } from "#lib/core/dtype";\n',
    ],
    ["lib/core/bf16.ts", "const { d: here } = await import" + '("./job.js");\n'],
  ]);
  assert.deepEqual(untaken(texts), ["lib/core/dtype.ts: e"]);
  texts.set("lib/core/job.ts", 'export * from "./dtype.js";\n');
  assert.deepEqual(untaken(texts), [
    ...["lib/core/dtype.ts: a", "lib/core/dtype.ts: B", "lib/core/dtype.ts: e"],
  ]);
  texts.set("lib/core/bf16.ts", "const f = (await import" + '("./dtype.js")).e;\n');
  assert.deepEqual(untaken(texts), [
    ...["lib/core/dtype.ts: a", "lib/core/dtype.ts: B", "lib/core/dtype.ts: d"],
  ]);
});

test("every export of the product has an importer", () => {
  const texts = new Map(sources.map((path) => [path, readSource(path)]));
  const isOfProduct = (found: string): boolean =>
    !["tests", "bench"].includes(folderOf(found)) &&
    !forOthers.some(([path]) => found.startsWith(`${path}: `));
  assert.deepEqual(untaken(texts).filter(isOfProduct), []);
  for (const [path] of forOthers) assert.ok(sources.includes(path), path);
});
