import assert from "node:assert/strict";
import { test } from "node:test";
import { Quarantine } from "#coordinator/quarantine";

test("failures are counted by worker, forgotten with a result, and keep out for times that double", () => {
  const clock = { ms: 0 };
  const quarantine = new Quarantine(() => clock.ms);
  const failures = (worker: string, count: number): number[] =>
    Array.from({ length: count }, () => quarantine.failed(worker));
  // Four of each of ten workers are nobody's five.
  for (let worker = 0; worker < 10; worker++) {
    assert.deepEqual(failures(String(worker), 4), [0, 0, 0, 0]);
  }
  quarantine.succeeded("0");
  assert.deepEqual(failures("0", 4), [0, 0, 0, 0]);
  assert.equal(quarantine.numOutSinceProgress, 0);
  assert.equal(quarantine.failed("0"), 30_000);
  assert.deepEqual(quarantine.verdictOf("0"), { waitMs: 30_000 });
  assert.equal(quarantine.verdictOf("1"), undefined);
  clock.ms = 30_000;
  assert.equal(quarantine.verdictOf("0"), undefined);
  assert.deepEqual(failures("0", 5), [0, 0, 0, 0, 60_000]);
  for (let pause = 0; pause < 20; pause++) failures("0", 5);
  assert.equal(failures("0", 5).at(-1), 30 * 60_000);
  assert.equal(quarantine.numOutSinceProgress, 1);
  quarantine.succeeded("1");
  assert.equal(quarantine.numOutSinceProgress, 0);
});

test("who lied is kept out for good, whatever it brings", () => {
  const clock = { ms: 0 };
  const quarantine = new Quarantine(() => clock.ms);
  quarantine.ban("liar", "other bits");
  quarantine.succeeded("liar");
  clock.ms = 1e9;
  assert.deepEqual(quarantine.verdictOf("liar"), { banReason: "other bits" });
});
