import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { allTargets } from "./targets/index.js";

const targets = await allTargets();

for (const target of targets) {
  test(`${target.name}: the valid inputs that are changed are valid`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "lockstep-fuzz-"));
    t.after(() => rm(folder, { recursive: true, force: true }));
    const reader = await target.open(folder);
    if (reader.kind === "property") return;
    t.after(() => reader.close?.());
    for (const [i, valid] of reader.corpus.entries()) {
      try {
        await reader.read(Buffer.from(valid));
      } catch (error) {
        assert.ok(isLockstepError(error));
        console.log(target.name, i, error.message);
      }
    }
  });
}
