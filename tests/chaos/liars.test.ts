import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Life } from "./account.js";
import { type ChaosInputs, createInputs } from "./job.js";
import { liarName } from "./liar.js";
import { Harness } from "./run-schedule.js";
import { type Lie, lies } from "./schedule.js";

// Members that lie among three honest ones: the bits of the undisturbed run, and who it was.

let inputs: ChaosInputs;
let harness: Harness;
before(async () => {
  inputs = await createInputs();
  harness = new Harness({ inputs, isReal: false });
});
after(() => inputs.remove());

/** Silence that follows half a push, or a report without one, is nobody's lie by itself: the lease ends. */
const unnamed: readonly Lie[] = ["half-push", "nothing-pushed"];

/** Who is named by events that accuse somebody. */
const accused = (lives: readonly Life[]): string =>
  lives
    .flatMap(({ events }) => events)
    .flatMap((event) => {
      switch (event.type) {
        case "worker.quarantined":
        case "push.refused":
          return [event.workerId];
        case "group.diverged":
          return event.workerIds;
        default:
          return [];
      }
    })
    .join(" ");

async function changesNothing(told: readonly Lie[]): Promise<void> {
  const { problems, faults, lives } = await harness.run({
    schedule: {
      ...{ seed: 0, numWorkers: 3, numShards: 2, isLarge: false },
      faults: told.map((lie) => ({ kind: "liar", lie })),
    },
    slot: 0,
    totalSteps: 12,
    // Whoever asks for groups gets some between the honest ones.
    paceMs: 300,
  });
  assert.deepEqual(problems, []);
  const names = accused(lives);
  for (const lie of told) {
    assert.ok(faults.includes(`liar-${lie}`), `${lie} was told`);
    if (!unnamed.includes(lie)) assert.match(names, new RegExp(liarName(lie)), lie);
  }
  for (const who of ["worker-0", "worker-1", "worker-2"]) {
    const quarantined = lives.flatMap(({ events }) =>
      events.filter((event) => event.type === "worker.quarantined" && event.workerId === who),
    );
    assert.deepEqual(quarantined, [], "an honest worker was kept out");
  }
}

test("whoever sends what is not his, not a number, too much or nothing changes no bit", async () => {
  await changesNothing(lies.filter((lie) => lie !== "wrong-sums"));
});

test("with verify_groups: 1, wrong sums with valid checksums change no bit", async () => {
  await changesNothing(["wrong-sums"]);
});
