import assert from "node:assert/strict";
import { test } from "node:test";
import { Refusals } from "#coordinator/refusals";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";

test("a flood of refused pushes makes a few events a second, which count the others", () => {
  const bus = new InProcessEventBus();
  const events: LockstepEvent[] = [];
  bus.subscribe((event) => events.push(event));
  let nowMs = 0;
  const refusals = new Refusals(bus, () => nowMs);
  const refused = { workerId: "x", peer: "p", code: "E_LEASE_NOT_HELD", reason: "r" };
  for (; nowMs < 3_000; nowMs++) refusals.add(refused);
  const told = events.flatMap((event) => (event.type === "push.refused" ? [event.numUntold] : []));
  assert.deepEqual(told, [0, 0, 0, 0, 0, 995, 0, 0, 0, 0, 995, 0, 0, 0, 0]);
});
