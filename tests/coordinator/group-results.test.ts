import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { GroupResults } from "#coordinator/group-results";

const sum = { lossSum: 1.5, weight: 2 };

/** A whole result of a worker: its lease has its number. */
function bring(results: GroupResults, lease: number, worker: string, bits: string): void {
  results.arrived(lease, worker, 0, `${bits} 0`);
  results.arrived(lease, worker, 1, `${bits} 1`);
  results.reported(lease, worker, sum, "1.5/2");
}

/** What it comes to, and what has become of its bytes. */
const stateOf = ({ verdict }: GroupResults): string =>
  verdict.kind === "agreed" ? `agreed, bytes ${verdict.bytes}` : "open";

const twoShards = (isVerified: boolean) => new GroupResults({ numShards: 2, isVerified });

test("a group is agreed only with its sums and the bytes of all shards, in any order", () => {
  fc.assert(
    fc.property(
      fc.shuffledSubarray(["sums", "0", "1"], { minLength: 3 }),
      fc.array(fc.constantFrom("sums", "0", "1"), { maxLength: 6 }),
      (order, repeats) => {
        const results = twoShards(false);
        const seen = new Set<string>();
        const bringPart = (part: string): void => {
          if (part === "sums") results.reported(1, "w", sum, "1.5/2");
          else results.arrived(1, "w", Number(part), `bits ${part}`);
          seen.add(part);
          assert.equal(results.verdict.kind === "agreed", seen.size === 3);
        };
        for (const part of order.slice(0, 2)) bringPart(part);
        for (const part of repeats) bringPart(part);
        for (const part of order) bringPart(part);
        const { verdict } = results;
        assert.ok(verdict.kind === "agreed");
        assert.deepEqual([verdict.sum, verdict.bytes, verdict.dissenters], [sum, "kept", []]);
      },
    ),
  );
});

test("whatever one worker lies about, and whenever, the bits of two honest ones count", () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(fc.constantFrom("a", "b", "liar"), { maxLength: 8 }),
      fc.infiniteStream(fc.constantFrom("lie 1", "lie 2")),
      (isVerified, order, lies) => {
        const results = twoShards(isVerified);
        const honest = new Set<string>();
        for (const [lease, worker] of [...order, "a", "b"].entries()) {
          bring(
            results,
            lease,
            worker,
            worker === "liar" ? (lies.next().value as string) : "right",
          );
          if (worker !== "liar") honest.add(worker);
          const { verdict } = results;
          if (verdict.kind === "open" || !isVerified) continue;
          // Verified, nothing is agreed on by one worker alone.
          assert.ok(honest.size === 2 && !verdict.dissenters.includes("a"));
        }
        const { verdict } = results;
        assert.ok(verdict.kind === "agreed");
        const kept = order[0] === "liar" ? "other" : "kept";
        assert.equal(verdict.bytes, kept);
        assert.deepEqual(verdict.dissenters, order.includes("liar") ? ["liar"] : []);
      },
    ),
  );
});

test("bytes of a dead worker that differ from another's are not passed over", () => {
  const results = twoShards(false);
  results.arrived(1, "dead", 0, "its bits 0");
  bring(results, 2, "b", "right");
  assert.deepEqual(results.verdict, { kind: "open", numMissing: 1, divided: ["dead", "b"] });
  bring(results, 3, "c", "right");
  const { verdict } = results;
  assert.ok(verdict.kind === "agreed" && verdict.bytes === "other");
  assert.deepEqual(verdict.dissenters, ["dead"]);
  // The step is begun anew: what is known stays, the bytes come again.
  results.restart();
  assert.equal(stateOf(results), "agreed, bytes missing");
  bring(results, 4, "c", "right");
  assert.equal(stateOf(results), "agreed, bytes kept");
});

test("one worker's two results do not outvote another's", () => {
  const results = twoShards(true);
  bring(results, 1, "liar", "lie");
  bring(results, 2, "liar", "lie");
  assert.deepEqual(results.verdict, { kind: "open", numMissing: 1, divided: [] });
  bring(results, 3, "a", "right");
  assert.equal(stateOf(results), "open");
  bring(results, 4, "b", "right");
  assert.equal(stateOf(results), "agreed, bytes other");
});

test("what was only reported is forgotten with its lease, and what has bytes is not", () => {
  const results = new GroupResults({ numShards: 2, isVerified: false });
  results.reported(1, "liar", { lossSum: 2, weight: 1 }, "2");
  results.reported(2, "honest", { lossSum: 1, weight: 1 }, "1");
  for (const shard of [0, 1]) results.arrived(2, "honest", shard, "right");
  assert.equal(results.verdict.kind, "open");
  assert.equal(results.forgetReport(1), true);
  assert.equal(results.forgetReport(1), false);
  assert.equal(results.forgetReport(2), false);
  assert.deepEqual(results.verdict, {
    kind: "agreed",
    sum: { lossSum: 1, weight: 1 },
    lease: 2,
    workerId: "honest",
    dissenters: [],
    bytes: "kept",
  });
});
