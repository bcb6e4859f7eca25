import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { runProgram } from "#tests/support/run-program";

for (const [page, script] of [["docs/keys-of-other-tools.md", "config-doc.mjs"]] as const) {
  test(`${page} is what its script writes`, async () => {
    const path = join(packageRoot, "scripts", script);
    const { code, stderr } = await runProgram(process.execPath, [path, "--check"]);
    assert.equal(code, 0, stderr);
  });
}
