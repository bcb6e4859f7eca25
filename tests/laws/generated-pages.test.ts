import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { supportedModelTypes } from "#lib/models/index";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "#tests/support/run-program";

for (const [page, script] of [
  ["docs/keys-of-other-tools.md", "config-doc.mjs"],
  ["docs/models.md", "models-doc.mjs"],
] as const) {
  test(`${page} is what its script writes`, async () => {
    const path = join(packageRoot, "scripts", script);
    const { code, stderr } = await runProgram(process.execPath, [path, "--check"]);
    assert.equal(code, 0, stderr);
  });
}

test("the data of the examples are what their script writes", async () => {
  const folder = join(packageRoot, "examples/data");
  const script = (await import(join(folder, "make.mjs"))) as Record<string, () => string>;
  for (const [name, ending] of [
    ["chats", "jsonl"],
    ["tickets", "csv"],
    ["preferences", "jsonl"],
  ] as const) {
    assert.equal(readFileSync(join(folder, `${name}.${ending}`), "utf8"), script[name]?.());
  }
});

test("every architecture has a reference case", () => {
  const cases = join(packageRoot, "tests/fixtures/models");
  const types = readdirSync(cases).map((name): unknown => {
    const config: unknown = JSON.parse(readFileSync(join(cases, name, "config.json"), "utf8"));
    return (config as { model_type?: unknown }).model_type;
  });
  assert.deepEqual(
    supportedModelTypes.filter((type) => !types.includes(type)),
    [],
  );
});
