import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

test("a process whose engine has computed nothing ends in order", () => {
  const program = fileURLToPath(new URL("../support/idle-engine.js", import.meta.url));
  const { status, signal, stderr } = spawnSync(process.execPath, [program], { encoding: "utf8" });
  assert.deepEqual([status, signal], [0, null], stderr);
});
