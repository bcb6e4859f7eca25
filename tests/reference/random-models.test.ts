import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { verifyModel } from "#cli/verify-model";
import { needsPeers, runPeers } from "#tests/support/peers";

test(
  "random models of every architecture and option have transformers' numbers",
  needsPeers(),
  async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "lockstep-random-models-"));
    t.after(() => rm(directory, { recursive: true, force: true }));
    const made = await runPeers("make_random_model.py", [directory]);
    const names = await readdir(directory);
    assert.deepEqual(names.sort(), made.trim().split("\n").sort());
    const failed: string[] = [];
    for (const name of names) {
      const model = join(directory, name);
      const options = { model, caseDirectory: undefined, tolerance: 1e-4, showAll: false };
      const { passed, report } = await verifyModel(options);
      if (!passed) failed.push(report);
    }
    assert.deepEqual(failed, []);
  },
);
