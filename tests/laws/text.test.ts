import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { usages } from "#cli/usage";
import { packageRoot } from "#lib/core/paths";
import { listTracked, readSource } from "#tests/support/source-files";

const maxTextBytes = 4 << 20;

/** Tracked files that are text. */
const files = listTracked().filter((path) => {
  const file = join(packageRoot, path);
  const { size } = statSync(file);
  return size <= maxTextBytes && !readFileSync(file).subarray(0, 8192).includes(0);
});

/** Lines that match, as path:line: text. */
function matches(pattern: RegExp, paths: readonly string[] = files): string[] {
  return paths.flatMap((path) =>
    readSource(path)
      .split("\n")
      .flatMap((line, index) =>
        pattern.test(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 100)}`] : [],
      ),
  );
}

const code = files.filter((path) => /\.(ts|mjs|js|css|html|py|proto)$/.test(path));
// These tests spell out what they forbid.
const others = files.filter((path) => path !== "tests/laws/text.test.ts");

test("there are files to look at", () => {
  assert.ok(files.length > 100);
  assert.ok(code.includes("lib/core/paths.ts"));
  assert.ok(matches(/packageRoot/, ["lib/core/paths.ts"]).length > 0);
});

test("no source leaves a mark for later", () => {
  const marks = new RegExp(
    `\\b(${["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"].join("|")})\\b`,
  );
  assert.deepEqual(matches(marks, code), []);
});

test("nothing tracked names a package registry's host", () => {
  const hosts = [
    "registry\\.npmjs",
    "registry\\.yarnpkg",
    "npmmirror",
    "files\\.pythonhosted",
    "pypi\\.org",
    "proxy\\.golang",
    "sum\\.golang",
    "index\\.crates",
    "deb\\.debian",
    "(?:\\d{1,3}\\.){3}\\d{1,3}:\\d+/(?:simple|npm|pypi)",
  ];
  assert.deepEqual(matches(new RegExp(hosts.join("|")), others), []);
});

test("nothing tracked names a path of the machine it was written on", () => {
  const paths =
    /(?:^|[\s"'`(=:])\/(?:work|root|home\/[a-z]\w*|Users\/\w+|tmp\/[\w.-]+)(?:\/|$|["'`\s])/;
  assert.match('cd "/home/ada/lockstep"', paths);
  assert.deepEqual(matches(paths, others), []);
});

test("the product reads nothing beside its own checkout", () => {
  const product = files.filter((path) =>
    /^(bin|cli|coordinator|dashboard|lib|proto|reducer|scripts|worker)\//.test(path),
  );
  assert.deepEqual(matches(/\.\.\/shared|["'`/]shared\//, product), []);
});

test("the product prints through its displays, not through forgotten console calls", () => {
  const product = code.filter((path) => /^(coordinator|lib|reducer|worker)\/.*\.ts$/.test(path));
  assert.deepEqual(matches(/\bconsole\.(log|debug|info)\(|\bdebugger\b/, product), []);
});

test("no type is any in the product", () => {
  // AssemblyScript's decorators need @ts-ignore in editors.
  const product = code.filter(
    (path) =>
      /^(cli|coordinator|dashboard|lib|reducer|worker)\/.*\.ts$/.test(path) &&
      !path.startsWith("lib/optim/assembly/"),
  );
  const any = /(?::|<|\bas)\s*any(?=\s*(?:[;,)>=[\]|&{]|$))|@ts-ignore|@ts-nocheck/;
  for (const line of ["let a: any = 1", "f(x as any)", "Map<any, b>"]) assert.match(line, any);
  assert.deepEqual(matches(any, product), []);
});

test("no folder is empty", () => {
  for (const folder of [
    "bench",
    "cli",
    "run",
    "coordinator",
    "dashboard",
    "deploy",
    "docs",
    "examples",
    "grafana",
    "lib",
    "proto",
    "reducer",
    "scripts",
    "tests",
    "worker",
  ]) {
    assert.ok(
      files.some((path) => path.startsWith(`${folder}/`)),
      `${folder}/ holds no tracked file`,
    );
  }
});

/**
 * Sources that are longer than one idea usually is, and why. The compiler and the linter judge
 * everything else; a reader judges length.
 */
const longFiles: Readonly<Record<string, string>> = {
  "lib/graph/tf-ops.ts": "the vocabulary of TensorFlow ops: one short function an op",
  "grafana/src/queries.ts": "the dashboard's panels in their order: data without logic",
};
const maxLines = 400;

test("a source of more than 400 lines has a reason", () => {
  const sources = code.filter(
    (path) => !path.startsWith("proto/gen/") && !path.startsWith("proto/tensorflow/"),
  );
  const long = sources.filter((path) => readSource(path).split("\n").length - 1 > maxLines);
  assert.deepEqual(
    long.filter((path) => !(path in longFiles)),
    [],
  );
  for (const path of Object.keys(longFiles)) assert.ok(long.includes(path), `${path} is short now`);
});

const pages = files.filter((path) => path.endsWith(".md"));

test("links between pages lead to files", () => {
  const broken: string[] = [];
  for (const page of pages) {
    const text = readSource(page).replace(/```[\s\S]*?```/g, "");
    for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^(https?:|mailto:|#)/.test(target)) continue;
      const file = join(packageRoot, dirname(page), target.split("#")[0] ?? "");
      if (!existsSync(file)) broken.push(`${page}: ${target}`);
    }
  }
  assert.deepEqual(broken, []);
});

test("tests that the pages name exist", () => {
  const named = pages.flatMap((page) =>
    [...readSource(page).matchAll(/`(tests\/[\w./-]+)`/g)].map(([, path = ""]) => path),
  );
  assert.ok(named.length > 100);
  assert.deepEqual(
    // A word in capitals stands for a name.
    named.filter((path) => !/[A-Z]{3}/.test(path) && !existsSync(join(packageRoot, path))),
    [],
  );
});

test("commands in the pages exist", () => {
  const { scripts } = JSON.parse(readSource("package.json")) as { scripts: Record<string, string> };
  const commands = new Set<string>(Object.keys(usages));
  const missing: string[] = [];
  const check = (page: string, what: string, exists: boolean): void => {
    if (!exists) missing.push(`${page}: ${what}`);
  };
  for (const page of [...pages, "examples/quickstart.yaml"]) {
    const text = readSource(page);
    for (const [, name = ""] of text.matchAll(/\bnpm run ([\w:-]+)/g)) {
      check(page, `npm run ${name}`, name in scripts);
    }
    for (const [, name = ""] of text.matchAll(/\bnpm (start|test)\b/g)) {
      check(page, `npm ${name}`, name in scripts);
    }
    for (const [, file = ""] of text.matchAll(/\bnode ((?:scripts|bin|bench)\/[\w./-]+\w)/g)) {
      check(page, `node ${file}`, existsSync(join(packageRoot, file)));
    }
    for (const [, name = ""] of text.matchAll(/\bbin\/lockstep ([a-z][\w-]*)/g)) {
      check(page, `bin/lockstep ${name}`, commands.has(name));
    }
  }
  assert.deepEqual(missing, []);
  for (const name of ["start", "test", "check"]) assert.ok(name in scripts);
});

test("README.md starts with the two commands", () => {
  const text = readSource("README.md");
  const first = /```\w*\n([\s\S]*?)```/.exec(text)?.[1] ?? "";
  const lines = first.split("\n").map((line) => line.replace(/\s*#.*/, "").trim());
  assert.deepEqual(
    lines.filter((line) => line !== ""),
    ["npm start", "npm test"],
  );
  assert.ok(text.indexOf("```") < 400, "the commands come before the explanations");
});
