import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { errorCatalogue } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "#tests/support/run-program";
import { listFiles, listSources, readSource } from "#tests/support/source-files";

const catalogued = new Set(Object.keys(errorCatalogue));
const product = listSources().filter(
  (path) => !/^(tests|bench|grafana)\//.test(path) && !path.startsWith("lib/core/errors/"),
);

/** What displays and logs call a failure without a code; nothing raises it. */
const uncoded = "E_UNEXPECTED";

/** Codes in the product outside the catalogue: where they are thrown, compared or passed on. */
const used = new Map<string, string>();
for (const path of [...product, ...listFiles(["dashboard"], ".ts")]) {
  for (const [, code = ""] of readSource(path).matchAll(/["'`](E_[A-Z][A-Z0-9_]+)["'`]/g)) {
    if (code !== uncoded) used.set(code, path);
  }
}

test("every code that the source names is in the catalogue", () => {
  const unknown = [...used].filter(([code]) => !catalogued.has(code));
  assert.deepEqual(unknown, []);
});

test("every code of the catalogue is raised somewhere", () => {
  const unused = [...catalogued].filter((code) => !used.has(code));
  assert.deepEqual(unused, []);
});

test("docs/errors.md lists exactly the codes of the catalogue", () => {
  const page = readFileSync(join(packageRoot, "docs", "errors.md"), "utf8");
  const listed = [...page.matchAll(/^### (E_\w+)$/gm)].map((match) => match[1] ?? "");
  assert.equal(new Set(listed).size, listed.length, "a code is listed twice");
  assert.deepEqual(listed.sort(), [...catalogued].sort());
});

test("docs/errors.md is what its script writes", async () => {
  const script = join(packageRoot, "scripts", "errors-doc.mjs");
  const { code, stderr } = await runProgram(process.execPath, [script, "--check"]);
  assert.equal(code, 0, stderr);
});

test("messages and hints are sentences", () => {
  for (const [code, { hint }] of Object.entries(errorCatalogue)) {
    assert.match(code, /^E_[A-Z0-9]+(_[A-Z0-9]+)*$/);
    assert.match(hint, /^[A-Z`].*\.$/s, code);
  }
});

test("errors of the product carry a code", () => {
  // A plain Error is for what only a mistake in this program can cause; the list may not grow
  // unnoticed into what a person can cause.
  const thrown = product
    .filter((path) => !path.startsWith("lib/optim/assembly/"))
    .flatMap((path) =>
      [...readSource(path).matchAll(/throw new (\w+)\(/g)].map((match) => `${path}: ${match[1]}`),
    );
  const coded = thrown.filter((line) => line.endsWith(": LockstepError"));
  assert.ok(coded.length > 30);
  // Of the last ones others make an error with a code: E_ENGINE_FAILED, E_HUB_RESPONSE and
  // E_CHAT_TEMPLATE_FAILED.
  const allowed = new Set(
    ["LockstepError", "Error", "RangeError", "TypeError"].concat(
      ...["EngineFailure", "UnusableAnswer", "TemplateError", "LoopControl"],
    ),
  );
  assert.deepEqual(
    thrown.filter((line) => !allowed.has(line.split(": ")[1] ?? "")),
    [],
  );
});
