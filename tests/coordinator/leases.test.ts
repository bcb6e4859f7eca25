import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { type Lease, LeaseTable } from "#coordinator/leases";
import { DeviceKinds } from "#coordinator/device-kinds";
import { Membership } from "#coordinator/membership";
import { TaskQueue, type Work } from "#coordinator/task-queue";

function table(
  numItems: number,
  leaseTimeoutMs = 100,
): { leases: LeaseTable; clock: { ms: number } } {
  const clock = { ms: 0 };
  let nextId = 1;
  const leases = new LeaseTable({
    numItems,
    leaseTimeoutMs,
    now: () => clock.ms,
    nextLeaseId: () => nextId++,
  });
  return { leases, clock };
}

const life = { incarnation: "1", secret: "s" };

/** What a work does with a first result. */
function complete(leases: LeaseTable, leaseId: number): Lease | undefined {
  const lease = leases.find(leaseId);
  if (lease === undefined || leases.isDone(lease.item)) return undefined;
  leases.finish(leaseId);
  leases.want(lease.item, 0);
  return lease;
}

test("whatever happens to leases, each item is done exactly once and none is lost", () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant("take" as const), worker: fc.nat(3) }),
    fc.record({ kind: fc.constant("complete" as const), lease: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ kind: fc.constant("lose" as const), worker: fc.nat(3) }),
    fc.record({ kind: fc.constant("wait" as const), ms: fc.nat(150) }),
    fc.record({ kind: fc.constant("drop" as const), lease: fc.integer({ min: 1, max: 30 }) }),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.array(action, { maxLength: 60 }),
      (numItems, actions) => {
        const { leases, clock } = table(numItems);
        const done: number[] = [];
        for (const step of actions) {
          if (step.kind === "take") leases.take(`w${step.worker}`);
          else if (step.kind === "lose") leases.releaseWorker(`w${step.worker}`);
          else if (step.kind === "drop") leases.releaseLease(step.lease);
          else if (step.kind === "wait") {
            clock.ms += step.ms;
            leases.expire();
          } else {
            const lease = complete(leases, step.lease);
            if (lease !== undefined) done.push(lease.item);
          }
          assert.equal(new Set(done).size, done.length);
          assert.equal(leases.allDone, done.length === numItems);
        }
        // Everybody vanishes; one new worker can finish all that is left, in order.
        for (let worker = 0; worker <= 3; worker++) leases.releaseWorker(`w${worker}`);
        const rest: number[] = [];
        for (let lease = leases.take("last"); lease !== undefined; lease = leases.take("last")) {
          rest.push(lease.item);
          assert.ok(complete(leases, lease.id));
        }
        assert.ok(leases.allDone);
        assert.deepEqual(
          rest,
          [...rest].sort((a, b) => a - b),
        );
        assert.deepEqual(
          [...done, ...rest].sort((a, b) => a - b),
          Array.from({ length: numItems }, (_, i) => i),
        );
      },
    ),
  );
});

test("a late result counts while the item is open, and is stale afterwards", () => {
  const { leases, clock } = table(1);
  const slow = leases.take("slow");
  clock.ms = 100;
  assert.deepEqual(
    leases.expire().map(({ id }) => id),
    [slow?.id],
  );
  const other = leases.take("other");
  assert.equal(other?.attempt, 2);
  assert.equal(complete(leases, slow?.id ?? 0)?.workerId, "slow");
  assert.equal(complete(leases, other?.id ?? 0), undefined);
  // The other's result would still be compared; taking it back opens nothing.
  assert.equal(leases.releaseWorker("other").length, 1);
  assert.equal(leases.numPending, 0);
});

test("a member is silent only after its timeout, and an id is one process' for good", () => {
  const clock = { ms: 0 };
  const membership = new Membership({
    heartbeatTimeoutMs: 50,
    kinds: new DeviceKinds({ plannedWorkers: 1, deterministic: true, now: () => clock.ms }),
    now: () => clock.ms,
  });
  const info = {
    name: "gpu",
    host: "h",
    pid: 1,
    deviceKind: "k",
    deviceType: "gpu" as const,
    ...life,
  };
  assert.equal(membership.join(info).workerId, "gpu");
  clock.ms = 50;
  assert.deepEqual(membership.silent(), []);
  clock.ms = 51;
  assert.deepEqual(
    membership.silent().map(({ workerId }) => workerId),
    ["gpu"],
  );
  membership.seen("gpu", "computing");
  assert.deepEqual(membership.silent(), []);
  membership.remove("gpu");
  assert.throws(() => membership.seen("gpu"), { code: "E_UNKNOWN_WORKER" });
  assert.equal(membership.join({ ...info, incarnation: "another" }).workerId, "gpu-2");
  assert.equal(membership.join(info).workerId, "gpu", "the same process, and no second voice");
});

const workOf = (leases: LeaseTable): Work & { readonly accepted: number[] } => {
  const accepted: number[] = [];
  return {
    leases,
    kind: "group",
    accepted,
    taskFor: (lease) => ({ kind: "evaluate", lease: lease.id, version: 0, batches: [] }),
    accept: (lease, result) => {
      if (result.kind === "tokens") throw new Error("refused");
      accepted.push(lease.item);
      complete(leases, lease.id);
    },
  };
};

test("a worker that asks too early is served when work opens; one that went away gets no lease", async () => {
  const queue = new TaskQueue();
  const gone = new AbortController();
  const stays = new AbortController();
  const first = queue.next("gone", 60_000, gone.signal);
  const second = queue.next("stays", 60_000, stays.signal);
  gone.abort();
  assert.deepEqual(await first, { kind: "wait" });
  const { leases } = table(1);
  queue.open(workOf(leases));
  assert.equal((await second).kind, "evaluate");
  assert.equal(leases.numPending, 0);
  const third = queue.next("third", 60_000, stays.signal);
  queue.releaseWorker("stays", "lost");
  assert.equal((await third).kind, "evaluate");
});

test("a worker that asks again gives back a task whose answer it never got", async () => {
  const queue = new TaskQueue();
  const { signal } = new AbortController();
  const { leases } = table(1);
  const requeued: string[] = [];
  const work = {
    ...workOf(leases),
    onRequeued: (_: unknown, reason: string) => requeued.push(reason),
  };
  // The connection of the first poll is cut without a word: its answer is written into nothing.
  const cut = queue.next("w", 60_000, signal);
  const again = queue.next("w", 60_000, signal);
  assert.deepEqual(await cut, { kind: "wait" });
  queue.open(work);
  const lost = await again;
  assert.deepEqual(requeued, []);
  const task = await queue.next("w", 1, signal);
  assert.ok(lost.kind === "evaluate" && task.kind === "evaluate" && task.lease !== lost.lease);
  assert.deepEqual(requeued, ["w asked for other work"]);
  const losses = { kind: "losses", sums: [] } as const;
  assert.equal(queue.complete({ workerId: "w", lease: task.lease, result: losses }), false);
  assert.deepEqual(work.accepted, [0]);
});

test("a worker that asks keeps the leases that it names, and no others", async () => {
  const queue = new TaskQueue();
  const { signal } = new AbortController();
  const { leases } = table(3);
  const requeued: number[] = [];
  const work = {
    ...workOf(leases),
    onRequeued: ({ item }: { readonly item: number }) => requeued.push(item),
  };
  queue.open(work);
  const take = async (worker: string, held: readonly number[]): Promise<number> => {
    const task = await queue.next(worker, 1, signal, held);
    assert.ok(task.kind === "evaluate");
    return task.lease;
  };
  const sending = await take("w", []);
  const others = await take("other", [sending]);
  const computing = await take("w", [sending]);
  assert.deepEqual(requeued, []);
  // The answer with item 2 was lost: the worker asks again, with what it still knows of.
  assert.equal(leases.find(await take("w", [sending]))?.item, 2);
  assert.deepEqual(requeued, [2]);
  // Naming another's lease keeps nothing of anybody.
  assert.deepEqual(await queue.next("w", 1, signal, [others, computing]), {
    kind: "evaluate",
    lease: 5,
    version: 0,
    batches: [],
  });
  assert.deepEqual(requeued, [2, 0, 2]);
  assert.equal(leases.find(others)?.workerId, "other");
  // Its death gives back whatever it named.
  queue.releaseWorker("w", "lost");
  assert.deepEqual(requeued, [2, 0, 2, 0]);
});

test("waiting ends with `wait`, and the job's end with `finished` for all", async () => {
  const queue = new TaskQueue();
  const { signal } = new AbortController();
  assert.deepEqual(await queue.next("w", 1, signal), { kind: "wait" });
  const waiting = queue.next("w", 60_000, signal);
  const end = { reason: "over", interrupted: true };
  queue.finish(end);
  assert.deepEqual(await waiting, { kind: "finished", ...end });
  assert.deepEqual(await queue.next("v", 60_000, signal), { kind: "finished", ...end });
});

test("a result that is refused leaves its item open", async () => {
  const queue = new TaskQueue();
  const { leases } = table(1);
  const work = workOf(leases);
  queue.open(work);
  const task = await queue.next("w", 1, new AbortController().signal);
  const lease = task.kind === "evaluate" ? task.lease : 0;
  const request = { workerId: "w", lease };
  assert.throws(
    () => queue.complete({ ...request, result: { kind: "tokens", ids: [] } }),
    /refused/,
  );
  assert.equal(leases.allDone, false);
  const losses = { kind: "losses" as const, sums: [] };
  assert.equal(queue.complete({ ...request, result: losses }), false);
  assert.equal(queue.complete({ ...request, result: losses }), true);
  assert.deepEqual(work.accepted, [0]);
});

test("whoever joins again and again fills no table, and no label with what it likes", () => {
  const membership = new Membership({
    heartbeatTimeoutMs: 1_000,
    kinds: new DeviceKinds({ plannedWorkers: 1, deterministic: true, now: () => 0 }),
    now: () => 0,
  });
  const join = (name: string): string => {
    const secret = randomUUID();
    return membership.join({
      ...{ name, host: "h", pid: 1, deviceKind: "k", deviceType: "cpu", secret },
      incarnation: randomUUID(),
    }).workerId;
  };
  assert.match(join(`a"} 1\n${"x".repeat(4_000)}`), /^a-1-x{60}$/);
  assert.equal(join("\n"), "-");
  const numVisits = 30_000;
  const ids = new Set<string>();
  for (let visit = 0; visit < numVisits; visit++) {
    const id = join(`visitor-${visit}`);
    ids.add(id);
    membership.remove(id);
  }
  assert.equal(ids.size, numVisits);
  // A name that was used long ago is no way to the id of another.
  assert.notEqual(join("visitor-0"), "visitor-0");
  while (membership.size < 4_096) join("w");
  assert.throws(() => join("w"), { code: "E_TOO_MANY_WORKERS" });
});

test("who says that it makes its engine takes part for longer than a short lease, and whoever only joined does not", () => {
  const clock = { ms: 0 };
  const membership = new Membership({
    heartbeatTimeoutMs: 3_600_000,
    kinds: new DeviceKinds({ plannedWorkers: 1, deterministic: true, now: () => clock.ms }),
    now: () => clock.ms,
  });
  for (const name of ["starting", "mute", "idle", "waiting"]) {
    membership.join({
      ...{ name, host: "h", pid: 1, deviceKind: "k", deviceType: "cpu", ...life },
      incarnation: name,
    });
  }
  const present = (): readonly string[] =>
    membership.takingPart(1_000, (workerId) => workerId === "waiting");
  clock.ms = 500;
  membership.seen("starting", "compiling");
  membership.seen("idle", "idle");
  clock.ms = 1_000;
  assert.deepEqual(present(), ["starting", "mute", "idle", "waiting"]);
  clock.ms = 1_001;
  assert.deepEqual(present(), ["starting", "waiting"]);
  membership.seen("starting");
  clock.ms = 600_000;
  assert.deepEqual(present(), ["starting", "waiting"]);
  // Whatever it is at, it is no engine.
  clock.ms = 600_001;
  assert.deepEqual(present(), ["waiting"]);
});
