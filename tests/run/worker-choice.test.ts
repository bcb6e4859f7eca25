import assert from "node:assert/strict";
import { test } from "node:test";
import { RandomStream } from "#lib/core/random";
import type { RunWorkers } from "#lib/queue/job";
import type { JobView } from "#lib/queue/job-queue";
import { chooseRun, leavesFor } from "#run/worker-choice";

const random = (): (() => number) => {
  const stream = new RandomStream(1, "test", 0);
  return () => stream.nextBelow(1 << 20) / (1 << 20);
};

/** A run that can be joined. */
const view = (id: string, workers: Partial<RunWorkers> | null, priority = 0): JobView => {
  const beat = {
    address: "127.0.0.1:1",
    workers: workers && { least: 1, planned: 2, most: null, joined: 0, ...workers },
  };
  return { job: { id, priority, state: "running" }, beat, waitsFor: [] } as unknown as JobView;
};
const chosen = (views: readonly JobView[], numTimes = 1_000): Record<string, number> => {
  const next = random();
  const counts: Record<string, number> = {};
  for (let i = 0; i < numTimes; i++) {
    const id = chooseRun(views, next)?.job.id ?? "none";
    counts[id] = (counts[id] ?? 0) + 1;
  }
  return counts;
};

test("workers that look at one moment spread by what runs want", () => {
  const counts = chosen([
    view("one", { planned: 1 }),
    view("three", { planned: 4, joined: 1 }),
    view("full", { planned: 2, joined: 2 }),
  ]);
  // The first of each needs a worker to begin; with equal needs, equal parts.
  assert.deepEqual(counts, { one: 1_000 });
  const {
    a = 0,
    b = 0,
    ...others
  } = chosen([view("a", { planned: 2, joined: 1 }), view("b", { planned: 5, joined: 2 })]);
  assert.deepEqual(others, {});
  // 1 and 3 of 4.
  assert.ok(Math.abs(a - 250) < 50 && Math.abs(b - 750) < 50, `${a} and ${b}`);
});

test("who cannot begin comes first, then priority, then who takes more than planned", () => {
  const waiting = view("waiting", { least: 3, planned: 4, joined: 2 });
  const first = view("first", { planned: 4, joined: 2 }, 9);
  const more = view("more", { planned: 1, most: 3, joined: 1 });
  assert.deepEqual(chosen([more, first, waiting]), { waiting: 1_000 });
  assert.deepEqual(chosen([more, first, view("last", { planned: 9, joined: 1 }, 8)]), {
    first: 1_000,
  });
  assert.deepEqual(chosen([more, view("any", { planned: 1, joined: 1 })]), { more: 1_000 });
  assert.deepEqual(chosen([view("any", { planned: 1, joined: 1 })]), { none: 1_000 });
  assert.deepEqual(chosen([view("silent", null)]), { silent: 1_000 });
});

test("as many workers leave a run for another one as are too many there", () => {
  const own = view("own", { planned: 2, joined: 8 });
  const other = view("other", { planned: 6, joined: 1 });
  const next = random();
  let numLeaving = 0;
  for (let i = 0; i < 1_000; i++) {
    const goal = leavesFor(own, [own, other], next);
    if (goal === undefined) continue;
    assert.equal(goal.job.id, "other");
    numLeaving++;
  }
  assert.ok(Math.abs(numLeaving - 750) < 50, String(numLeaving));
  assert.equal(
    leavesFor(view("own", { joined: 2 }), [own, other], () => 0),
    undefined,
  );
  assert.equal(
    leavesFor(own, [own, view("other", { joined: 2 })], () => 0),
    undefined,
  );
});
