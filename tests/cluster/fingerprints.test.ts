import assert from "node:assert/strict";
import { test } from "node:test";
import { sequentialOracle, testJob } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

const totalSteps = 6;
const oracle = await sequentialOracle(totalSteps);
const engine = new URL("../support/flipping-engine.js", import.meta.url).href;

/**
 * A run with a worker of faulty memory, and a sound one: from when the first has come to step 2, where it waits for the
 * other one to have work, or from when it is out.
 */
async function runWithFlips(
  fingerprintSteps: number,
  flips: string,
  { isKeptOut = false }: { readonly isKeptOut?: boolean } = {},
) {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    job: { ...testJob, ...(fingerprintSteps > 0 ? { fingerprints: true } : {}) },
    fingerprintSteps,
  });
  const workers = [
    spawnWorker(address, {
      ...{ LOCKSTEP_TEST_NAME: "faulty", LOCKSTEP_TEST_ENGINE: engine },
      ...{ LOCKSTEP_TEST_FLIPS: flips, LOCKSTEP_TEST_STALL: "leased:2" },
    }),
  ];
  const running = coordinator.run();
  await recorder.until((event) =>
    isKeptOut
      ? event.type === "worker.quarantined"
      : event.type === "group.leased" && event.step === 2,
  );
  workers.push(spawnWorker(address, { LOCKSTEP_TEST_NAME: "sound" }));
  await recorder.until((event) => event.type === "group.leased" && event.workerId === "sound");
  if (!isKeptOut) workers[0]?.process.send("go");
  const outcome = await running;
  const exits = await Promise.all(workers.map(({ exited }) => exited));
  return { isRight: outcome.mastersSha256 === oracle.mastersSha256, recorder, exits };
}

test(
  "with fingerprint_steps: 1 a flipped bit is found before it counts, and its worker named",
  limit,
  async () => {
    const { isRight, recorder, exits } = await runWithFlips(1, "1,3");
    assert.ok(isRight);
    const found = recorder.of("worker.corrupted");
    assert.ok(found.length >= 1);
    for (const { workerId, spaces } of found) {
      assert.deepEqual({ workerId, spaces }, { workerId: "faulty", spaces: ["trained"] });
    }
    // It loaded its weights anew, and went on; what it had computed was computed again.
    assert.deepEqual(recorder.of("worker.lost"), []);
    assert.equal(
      recorder.of("group.requeued").filter(({ reason }) => /changed in memory/.test(reason)).length,
      found.length,
    );
    assert.deepEqual(
      exits.map(({ code }) => code),
      [0, 0],
    );
  },
);

test("a worker whose weights change again and again is kept out", limit, async () => {
  const { isRight, recorder } = await runWithFlips(1, "1,2,3,4,5,6,7,8,9", {
    isKeptOut: true,
  });
  assert.ok(isRight);
  assert.deepEqual(
    recorder.of("worker.quarantined").map(({ workerId }) => workerId),
    ["faulty"],
  );
  assert.equal(recorder.of("worker.corrupted").length, 3);
});

test("without fingerprints the same bit is in the result, and nobody is named", limit, async () => {
  const { isRight, recorder } = await runWithFlips(0, "1");
  assert.ok(!isRight);
  assert.deepEqual(recorder.of("worker.corrupted"), []);
});
