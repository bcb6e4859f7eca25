import assert from "node:assert/strict";
import { test } from "node:test";
import { Checkpointer } from "#coordinator/checkpointer";
import { copiedState, type HeldState, LentState } from "#coordinator/held-state";
import type { CheckpointState } from "#coordinator/options";
import { LockstepError } from "#lib/core/errors/index";
import { EventRecorder } from "#tests/support/cluster";

// Saves of the weights that a run may end with, which a disk refuses.

const stateAt = (step: number) => ({ step }) as CheckpointState;

/** @param outcomes of the attempts at each step; when there are no more they succeed */
function checkpointer(outcomes: Readonly<Record<number, number>>, retryMs = 60_000) {
  const recorder = new EventRecorder();
  const failures = new Map<number, number>();
  const events: string[] = [];
  const errors: unknown[] = [];
  const begun = new Checkpointer({
    bus: recorder.bus,
    onError: (error) => errors.push(error),
    onGivenUp: () => events.push("given up"),
    checkpointing: {
      retryMs,
      save: async (_snapshot, { step }, _states, onRead) => {
        // All of it is read, and only then something fails.
        onRead();
        const failed = failures.get(step) ?? 0;
        failures.set(step, failed + 1);
        await new Promise((resolve) => setImmediate(resolve));
        if (failed < (outcomes[step] ?? 0)) {
          throw new LockstepError("E_DISK_FULL", { file: `checkpoint-${step}` });
        }
        events.push(`saved ${step}`);
        return { directory: `checkpoint-${step}`, bytes: 1 };
      },
    },
  });
  const begin = (step: number, held: HeldState, isKept: boolean): Promise<void> =>
    begun.begin(async () => held, stateAt(step), {}, isKept);
  const failed = (step: number): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (recorder.of("checkpoint.failed").some((event) => event.step === step)) resolve();
        else setImmediate(look);
      };
      look();
    });
  return { begun, begin, failed, recorder, events, errors };
}

test("an update waits for the best weights, which are saved when the disk has room", async () => {
  const { begin, begun, failed, events, recorder } = checkpointer({ 3: 2 });
  const lent = new LentState([]);
  await begin(3, lent, true);
  await failed(3);
  const updated = lent.wanted().then(() => events.push("updated"));
  await updated;
  await begun.settled();
  assert.deepEqual(events, ["saved 3", "updated"]);
  const told = recorder.of("note").map(({ text }) => text);
  assert.match(told.join("\n"), /checkpoint-3 was not saved.*training waits, for the best weights/);
});

test("other weights give way to the update, and are asked for again", async () => {
  const { begin, begun, failed, events } = checkpointer({ 3: 9 });
  const lent = new LentState([]);
  await begin(3, lent, false);
  await failed(3);
  await lent.wanted();
  await begun.settled();
  assert.deepEqual(events, ["given up"]);
});

test("a later save waits for the best weights; one of better weights takes their place", async () => {
  const waits = checkpointer({ 3: 2 });
  await waits.begin(3, copiedState([], 0), true);
  await waits.failed(3);
  await waits.begin(4, copiedState([], 0), false);
  await waits.begun.settled();
  assert.deepEqual(waits.events, ["saved 3", "saved 4"]);
  const better = checkpointer({ 3: 9 });
  await better.begin(3, copiedState([], 0), true);
  await better.failed(3);
  await better.begin(4, copiedState([], 0), true);
  await better.begun.settled();
  assert.deepEqual(better.events, ["saved 4"]);
  assert.deepEqual(better.errors, []);
});

test("best weights that cannot be saved end the run by name", async () => {
  const { begin, failed, events, errors } = checkpointer({ 3: 9 }, 0);
  const lent = new LentState([]);
  await begin(3, lent, true);
  await failed(3);
  await lent.wanted();
  assert.deepEqual(events, []);
  assert.equal((errors[0] as { code?: unknown }).code, "E_SAVE_FAILED");
});
