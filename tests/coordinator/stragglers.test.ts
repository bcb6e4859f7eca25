import assert from "node:assert/strict";
import { test } from "node:test";
import { SimulatedCluster, type SimulatedWorker } from "#tests/support/simulated-workers";

/** Numbers from 0 to 1 that depend on the seed alone. */
function drawn(seed: number): () => number {
  let state = seed * 2_654_435_761;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    return ((Math.imul(state ^ (state >>> 12), 0x297a2d39) >>> 0) % 1_000_003) / 1_000_003;
  };
}

const numSeeds = Number(process.env["LOCKSTEP_STRAGGLER_SEEDS"] ?? 60);
const groupMs = 10_000;
const numSteps = 6;
/** What a step may take of what the workers' speeds add up to. */
const bound = 1.3;

test(`one worker at a fifth of the others' speed: a step takes at most ${bound} times what the sum of speeds allows`, async () => {
  let numAgain = 0;
  let numInAll = 0;
  for (let seed = 0; seed < numSeeds; seed++) {
    const random = drawn(seed + 1);
    const numWorkers = 2 + Math.floor(random() * 11);
    const numGroups = numWorkers * (4 + Math.floor(random() * 5));
    const slow = Math.floor(random() * numWorkers);
    const speeds = Array.from({ length: numWorkers }, (_, i) => (i === slow ? 0.2 : 1));
    // Each group a little faster or slower than the one before it.
    const workers = speeds.map((speed, i): SimulatedWorker => {
      const jitter = drawn(seed * 100 + i + 7);
      return { id: `w${i}`, groupMs: () => (groupMs / speed) * (0.97 + 0.06 * jitter()) };
    });
    const cluster = new SimulatedCluster(workers);
    for (let step = 0; step < numSteps; step++) await cluster.step(numGroups);
    cluster.close();
    const ideal = (numGroups * groupMs) / 1000 / speeds.reduce((sum, one) => sum + one, 0);
    for (const [step, { seconds, numLeases }] of cluster.steps.entries()) {
      const ratio = seconds / ideal;
      numAgain += numLeases - numGroups;
      numInAll += numGroups;
      assert.ok(
        ratio <= bound,
        `seed ${seed}, step ${step}: ${numWorkers} workers, ${numGroups} groups took ${ratio.toFixed(2)} times`,
      );
    }
    assert.deepEqual(
      cluster.news.map(({ workerId, isSlow }) => ({ workerId, isSlow })),
      [{ workerId: `w${slow}`, isSlow: true }],
    );
  }
  // What it costs the others.
  assert.ok(numAgain > 0 && numAgain < 0.02 * numInAll, `${numAgain} of ${numInAll}`);
});

test("where workers compute other bits, a slow one's group is not computed again", async () => {
  const leases = async (haveSameBits: boolean): Promise<number> => {
    const workers = [0.1, 1, 1].map(
      (speed, i): SimulatedWorker => ({ id: `w${i}`, groupMs: () => groupMs / speed }),
    );
    const cluster = new SimulatedCluster(workers, haveSameBits);
    for (let step = 0; step < numSteps; step++) await cluster.step(8);
    cluster.close();
    return cluster.steps.reduce((sum, { numLeases }) => sum + numLeases, 0);
  };
  assert.equal(await leases(false), 8 * numSteps);
  assert.ok((await leases(true)) > 8 * numSteps);
});

test("workers of one speed compute nothing twice", async () => {
  const workers = Array.from({ length: 4 }, (_, i): SimulatedWorker => {
    const jitter = drawn(i + 1);
    return { id: `w${i}`, groupMs: () => groupMs * (0.9 + 0.2 * jitter()) };
  });
  const cluster = new SimulatedCluster(workers);
  for (let step = 0; step < 20; step++) await cluster.step(16);
  cluster.close();
  assert.deepEqual(
    cluster.steps.map(({ numLeases }) => numLeases),
    cluster.steps.map(() => 16),
  );
  assert.deepEqual(cluster.news, []);
});

test("a worker that was slow once, as one that compiles, is given work again", async () => {
  let isFirst = true;
  const done = { late: 0 };
  const cluster = new SimulatedCluster([
    { id: "steady", groupMs: () => groupMs },
    {
      id: "late",
      groupMs: () => {
        done.late += 1;
        if (!isFirst) return groupMs;
        isFirst = false;
        return 30 * groupMs;
      },
    },
  ]);
  for (let step = 0; step < 12; step++) await cluster.step(8);
  cluster.close();
  assert.deepEqual(
    cluster.news.map(({ isSlow }) => isSlow),
    [true, false],
  );
  // As soon as it computes as fast as the other one it has half of the groups.
  assert.equal(cluster.steps.at(-1)?.seconds, (4 * groupMs) / 1000);
  assert.ok(done.late > 12, `${done.late}`);
});

test("a group whose worker hangs is computed by another long before its lease ends", async () => {
  const cluster = new SimulatedCluster([
    { id: "steady", groupMs: () => groupMs },
    { id: "hangs", groupMs: () => 1e9 },
  ]);
  await cluster.step(4);
  cluster.close();
  const [step] = cluster.steps;
  assert.ok((step?.seconds ?? Infinity) <= 5 * (groupMs / 1000), `${step?.seconds}`);
});
