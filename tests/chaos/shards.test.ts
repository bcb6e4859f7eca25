import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type ChaosInputs, createInputs } from "./job.js";
import { Harness } from "./run-schedule.js";
import { shardScheduleOf } from "./schedule.js";

// Reducers are killed in real runs. Replayed by node scripts/soak.mjs --shards 2 --seed N.

let inputs: ChaosInputs;
let harness: Harness;
before(async () => {
  inputs = await createInputs();
  harness = new Harness({ inputs, isReal: false });
});
after(() => inputs.remove());

for (const [numReplicas, seeds] of [
  [2, [2, 3]],
  [1, [202]],
] as const) {
  for (const seed of seeds) {
    const kept = numReplicas === 2 ? "no step is lost" : "the run goes back by itself";
    test(`seed ${seed}: a shard with ${numReplicas - 1} mirrors is killed, ${kept}, and the bits stay`, async () => {
      const schedule = shardScheduleOf(seed, numReplicas);
      const outcome = await harness.run({ schedule, slot: 0 });
      assert.deepEqual(outcome.problems, [], outcome.faults.join(", "));
      const types = outcome.lives.flatMap(({ events }) => events.map(({ type }) => type));
      assert.equal(types.includes("shards.rolledBack"), numReplicas === 1);
    });
  }
}
