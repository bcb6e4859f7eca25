import assert from "node:assert/strict";
import { test } from "node:test";
import { AwakeClock, awakeMs } from "#lib/core/awake-clock";

test("a clock of the time awake stands still while its process does", () => {
  const machine = { ms: 5_000 };
  const clock = new AwakeClock(() => machine.ms);
  assert.equal(clock.now(), 0);
  for (let look = 0; look < 100; look++) {
    machine.ms += 100;
    clock.now();
  }
  assert.equal(clock.now(), 10_000);
  // Stopped for an hour.
  machine.ms += 3_600_000;
  const afterPause = clock.now();
  assert.ok(afterPause - 10_000 <= 200, String(afterPause));
  assert.equal(clock.now(), afterPause);
  machine.ms += 150;
  assert.equal(clock.now(), afterPause + 150);
});

test("the clock of a thread goes on where nobody looks, and not while the thread is held up", {
  timeout: 60_000,
}, async () => {
  // On a busy machine a wait may be a pause.
  for (let countedMs = 0; countedMs <= 200; ) {
    const begunMs = awakeMs();
    await new Promise((resolve) => setTimeout(resolve, 500));
    countedMs = awakeMs() - begunMs;
  }
  const heldUpAtMs = awakeMs();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000);
  assert.ok(awakeMs() - heldUpAtMs <= 200);
});
