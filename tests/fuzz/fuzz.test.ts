import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { runTarget } from "./campaign.js";
import { faultText } from "./fault-text.js";
import { plan } from "./plan.js";
import { allTargets } from "./targets/index.js";

const targets = await allTargets();
const casesDir = join(packageRoot, "tests", "fuzz", "cases");
/** Of all targets together; the seed is fixed, so every run has the same. */
const numInputs = 4_000;
const seed = 14;

test("what is mutated is valid: every reader takes some of its corpus", async (t) => {
  for (const target of targets) {
    const folder = await mkdtemp(join(tmpdir(), "lockstep-fuzz-"));
    t.after(() => rm(folder, { recursive: true, force: true }));
    const reader = await target.open(folder);
    if (reader.kind === "property") continue;
    let numTaken = 0;
    for (const valid of reader.corpus) {
      try {
        await reader.read(Buffer.from(valid));
        numTaken++;
      } catch (error) {
        assert.ok(isLockstepError(error), String(error));
      }
    }
    await reader.close?.();
    assert.ok(numTaken > 0, `${target.name} takes none of its corpus`);
  }
});

for (const target of targets) {
  const folder = join(casesDir, target.name);
  if (!existsSync(folder)) continue;
  const names = readdirSync(folder).sort();
  test(`${target.name}: what once was a fault ends as its file's name says`, async () => {
    const files = names.map((name) => join(folder, name));
    const report = await runTarget(target, { seed: 0, from: 0, to: files.length, files });
    assert.deepEqual(report.faults, []);
    for (const [i, name] of names.entries()) {
      const expected = name.split(".").at(-1);
      assert.equal(report.outcomes[i], expected === "value" ? "a value" : expected, name);
    }
  });
}

test(`${numInputs} seeded inputs end in values or in errors of the catalogue`, async () => {
  const queue = [...plan(targets, numInputs)];
  const faults: string[] = [];
  let numRun = 0;
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const report = await runTarget(next.target, { seed, from: 0, to: next.numInputs });
      numRun += report.numValues + report.numRefused;
      faults.push(...report.faults.map(faultText));
    }
  };
  await Promise.all([work(), work()]);
  assert.deepEqual(faults, []);
  assert.ok(numRun >= numInputs, `${numRun} inputs`);
});
