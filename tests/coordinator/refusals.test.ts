import assert from "node:assert/strict";
import { test } from "node:test";
import { Refusals } from "#coordinator/refusals";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";

/** Refusals with a clock, and what they told. */
function parts() {
  const bus = new InProcessEventBus();
  const events: LockstepEvent[] = [];
  bus.subscribe((event) => events.push(event));
  const clock = { ms: 0 };
  const told = () => events.flatMap((event) => (event.type === "push.refused" ? [event] : []));
  return { refusals: new Refusals(bus, () => clock.ms), clock, told };
}

const refusalOf = (workerId: string) => ({
  ...{ workerId, peer: "p", code: "E_LEASE_NOT_HELD", reason: "r" },
});

test("a flood of refused pushes makes a few events a second, which count the others", () => {
  const { refusals, clock, told } = parts();
  for (; clock.ms < 3_000; clock.ms++) refusals.add(refusalOf("x"));
  const untold = told().map(({ numUntold }) => numUntold);
  assert.deepEqual(untold, [0, 0, 0, 0, 0, 995, 0, 0, 0, 0, 995, 0, 0, 0, 0]);
});

test("who is refused again and again hides nobody else of the same second", () => {
  const { refusals, told } = parts();
  for (let n = 0; n < 1_000; n++) refusals.add(refusalOf("loud"));
  refusals.add(refusalOf("quiet"));
  assert.equal(told().at(-1)?.workerId, "quiet");
});

test("who calls itself by ever other names makes a bounded number of events a second", () => {
  const { refusals, clock, told } = parts();
  for (let n = 0; n < 10_000; n++) refusals.add(refusalOf(`name-${n}`));
  assert.equal(told().length, 100);
  clock.ms = 1_000;
  refusals.add(refusalOf("next"));
  assert.equal(told().at(-1)?.numUntold, 9_900);
});
