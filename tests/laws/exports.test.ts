import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import { exportsOf, type Taken, takenBy } from "#tests/support/exports";
import { listFiles, listSources, readSource, withoutComments } from "#tests/support/source-files";

/** Files and folders that others than our sources import, and who does. */
const entries: Readonly<Record<string, string>> = {
  "run/index.ts": "programs that import the package",
  "lib/core/errors/": "scripts/errors-doc.mjs takes each part of the catalogue by name",
  "lib/optim/assembly/": "the WebAssembly module's exports",
  "tests/support/fake-engine.ts": "an engine module, named by its path",
  "tests/support/scripted-engine.ts": "the same",
  "tests/support/flipping-engine.ts": "the same",
  "tests/support/flipping-graph-engine.ts": "the same",
};
const isEntry = (path: string): boolean =>
  Object.keys(entries).some((entry) => path.startsWith(entry));

/** What a product's file has for tests alone, and why it cannot be among them. */
const forTests: Readonly<Record<string, string>> = {
  "lib/graph/bf16-kernels.ts#assumeHalfKernels":
    "graphs of a device that the tests' machine is not",
  "lib/config/decisive-keys.ts#freeKeys": "the third part of all keys, which a law adds up",
};

const key = ({ path, name }: Taken): string => `${path}#${name}`;
const sources = listSources();
const exported = new Map(
  sources
    .filter((path) => !path.endsWith(".test.ts"))
    .map((path) => [path, exportsOf(path, readSource(path))]),
);

/** Everything that these files take, through re-exports to where it is declared. */
function reached(files: readonly string[]): ReadonlySet<string> {
  const found = new Set<string>();
  const visit = (taken: Taken): void => {
    if (found.has(key(taken))) return;
    found.add(key(taken));
    for (const { name, from } of exported.get(taken.path) ?? []) {
      if (taken.name === "*" && name !== "*") visit({ path: taken.path, name });
      else if (name === taken.name && from !== undefined) visit(from);
      else if (name === "*" && from !== undefined) visit({ path: from.path, name: taken.name });
    }
  };
  for (const path of files) for (const taken of takenBy(path, readSource(path))) visit(taken);
  for (const [path, names] of exported) {
    if (isEntry(path)) for (const { name } of names) visit({ path, name });
  }
  return found;
}

const scripts = listFiles(["scripts", "examples"], ".mjs");
const isTest = (path: string): boolean => path.startsWith("tests/");
const byAll = reached([...sources, ...scripts]);
const byProduct = reached([...sources.filter((path) => !isTest(path)), ...scripts]);

test("the law sees imports and exports of every kind", () => {
  const text = [
    'import base, { a, type B as C } from "#lib/core/job";',
    'import type { D } from "#lib/core/batch";',
    'import * as all from "#lib/core/bf16";',
    'const { e, f: g } = await import("#lib/core/random");',
    'const h = (await import("#lib/core/format")).i;',
  ].join("\n");
  assert.deepEqual(
    takenBy("lib/core/t.ts", text).map(({ path, name }) => `${basename(path, ".ts")} ${name}`),
    ["job a", "job B", "job default", "batch D", "bf16 *", "random e", "random f", "format i"],
  );
  const code = [
    "export const a = 1;",
    "export default async function f() {}",
    'export type { B as C } from "#lib/core/job";',
    'export * from "#lib/core/batch";',
  ].join("\n");
  assert.deepEqual(
    exportsOf("lib/core/t.ts", code).map(({ name }) => name),
    ["a", "default", "C", "*"],
  );
});

test("what is exported is imported by somebody", () => {
  const dead = [...exported].flatMap(([path, names]) =>
    names
      .filter(({ name }) => name !== "*" && !byAll.has(key({ path, name })))
      .map(({ name }) => key({ path, name })),
  );
  assert.deepEqual(dead, []);
});

test("what only tests need is among the tests", () => {
  const misplaced = [...exported].flatMap(([path, names]) => {
    if (isTest(path)) return [];
    const code = withoutComments(readSource(path));
    return names
      .filter(({ name, from }) => from === undefined && !byProduct.has(key({ path, name })))
      .filter(({ name }) => [...code.matchAll(new RegExp(`\\b${name}\\b`, "g"))].length < 2)
      .map(({ name }) => key({ path, name }));
  });
  assert.deepEqual(misplaced.toSorted(), Object.keys(forTests).toSorted());
});
