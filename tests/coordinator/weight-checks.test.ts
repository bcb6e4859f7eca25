import assert from "node:assert/strict";
import { test } from "node:test";
import { WeightChecks } from "#coordinator/weight-checks";

let lastLease = 0;
const check = (checks: WeightChecks, workerId: string, sent: string, lease = ++lastLease) =>
  checks.check(
    { workerId, lease, version: 3, fingerprints: [{ space: "trained", sent, held: sent }] },
    `life of ${workerId}`,
  );

test("a worker whose account of what it was sent has changed loads it anew, and the run goes on", () => {
  const checks = new WeightChecks();
  assert.equal(check(checks, "first", "aa").kind, "intact");
  const verdict = check(checks, "second", "ab");
  assert.deepEqual(verdict, {
    ...{ kind: "corrupted", spaces: ["trained"], intactVersion: undefined, numFound: 1 },
  });
  assert.equal(check(checks, "second", "aa").kind, "intact");
  // Memory that changes what comes does so each time otherwise.
  const founds = ["ba", "bb", "bc"].map((sent) => check(checks, "third", sent));
  assert.deepEqual(
    founds.map((found) => found.kind === "corrupted" && found.numFound),
    [1, 2, 3],
  );
});

test("two workers that were sent different weights, again after a second load, end the run", () => {
  const checks = new WeightChecks();
  check(checks, "first", "aa");
  assert.equal(check(checks, "second", "ab").kind, "corrupted");
  // The call was made again, as its answer was lost.
  assert.equal(check(checks, "second", "ab", lastLease).kind, "corrupted");
  assert.throws(() => check(checks, "second", "ab"), { code: "E_WEIGHTS_DIVERGED" });
});
