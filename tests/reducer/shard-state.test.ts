import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type GradientChunk, PushAssembly, ShardState } from "#coordinator/reducer/shard-state";

const rangeBytes = 24;
const stateOf = (options: { numGroups?: number; maxAssemblies?: number } = {}) =>
  new ShardState({
    shardIndex: 0,
    rangeBytes,
    numGroups: options.numGroups ?? 2,
    maxAssemblies: options.maxAssemblies ?? 4,
  });

/** Bytes that tell their group and lease. */
const gradientOf = (group: number, lease: number): Uint8Array =>
  Uint8Array.from({ length: rangeBytes }, (_, i) => group * 100 + lease * 31 + i);

function chunkOf(
  step: number,
  group: number,
  lease: number,
  from = 0,
  to = rangeBytes,
): GradientChunk {
  return {
    step,
    group,
    // A lease is of one group.
    lease: group * 1000 + lease,
    offset: from,
    checksum: lease,
    payload: gradientOf(group, lease).slice(from, to),
  };
}

function begin(state: ShardState, chunk: GradientChunk): PushAssembly {
  const push = state.begin(chunk);
  assert.ok(push instanceof PushAssembly);
  return push;
}

function pushWhole(state: ShardState, step: number, group: number, lease: number): string {
  const chunk = chunkOf(step, group, lease);
  const push = state.begin(chunk);
  if (!(push instanceof PushAssembly)) return push;
  return push.accept(chunk) ?? push.finish();
}

test("groups leave in group order, whole and unmixed, whatever the order of arrival and duplication", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.record({ group: fc.nat(3), chunkBytes: fc.constantFrom(5, 8, 24) }), {
        maxLength: 12,
      }),
      fc.infiniteStream(fc.nat(999)),
      (numGroups, extraPushes, choices) => {
        const state = stateOf({ numGroups, maxAssemblies: 64 });
        state.openStep(7);
        // Every group once, and any number of further leases of them.
        const pushes = [
          ...Array.from({ length: numGroups }, (_, group) => ({ group, lease: 9, chunkBytes: 8 })),
          ...extraPushes.map((push, at) => ({
            ...push,
            group: push.group % numGroups,
            // One push at a time of a lease.
            lease: 10 + at,
          })),
        ].map(({ group, lease, chunkBytes }) => ({
          lease,
          group,
          chunks: Array.from({ length: Math.ceil(rangeBytes / chunkBytes) }, (_, i) =>
            chunkOf(7, group, lease, i * chunkBytes, Math.min(rangeBytes, (i + 1) * chunkBytes)),
          ),
          assembly: undefined as PushAssembly | undefined,
        }));
        const winners = new Map<number, number>();
        const taken: Uint8Array[] = [];
        const running = [...pushes];
        while (running.length > 0) {
          // Interleaves the streams in an arbitrary way.
          const at = (choices.next().value as number) % running.length;
          const push = running[at] as (typeof pushes)[number];
          const chunk = push.chunks.shift();
          let outcome: string | undefined;
          if (chunk === undefined) outcome = (push.assembly as PushAssembly).finish();
          else if (push.assembly === undefined) {
            const begun = state.begin(chunk);
            if (begun instanceof PushAssembly) {
              push.assembly = begun;
              outcome = begun.accept(chunk);
            } else outcome = begun;
          } else outcome = push.assembly.accept(chunk);
          if (outcome === undefined) continue;
          running.splice(at, 1);
          if (outcome === "complete") {
            assert.ok(!winners.has(push.group), "a group completes once");
            winners.set(push.group, push.lease);
          } else assert.equal(outcome, "duplicate");
          for (let bytes = state.takeNext(); bytes !== undefined; bytes = state.takeNext()) {
            taken.push(bytes.slice());
            state.release(bytes);
          }
        }
        assert.ok(state.allArrived);
        assert.equal(state.numBuffersInUse, 0);
        assert.deepEqual(
          taken,
          Array.from({ length: numGroups }, (_, group) =>
            gradientOf(group, winners.get(group) as number),
          ),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test("a bad chunk ends its push with E_PUSH_CHUNK; the group is not counted and can come again", () => {
  const bad: Record<string, GradientChunk> = {
    "an overlap": chunkOf(0, 0, 1, 4, 12),
    "a repeated chunk": chunkOf(0, 0, 1, 0, 8),
    "a gap": chunkOf(0, 0, 1, 12, 16),
    "bytes beyond the range": { ...chunkOf(0, 0, 1), offset: 8 },
    "an empty chunk": chunkOf(0, 0, 1, 8, 8),
    "another lease": chunkOf(0, 0, 2, 8, 16),
    "another group": chunkOf(0, 1, 1, 8, 16),
    "another step": chunkOf(1, 0, 1, 8, 16),
  };
  for (const [what, chunk] of Object.entries(bad)) {
    const state = stateOf({ numGroups: 1 });
    state.openStep(0);
    const push = begin(state, chunkOf(0, 0, 1, 0, 8));
    push.accept(chunkOf(0, 0, 1, 0, 8));
    assert.throws(() => push.accept(chunk), { code: "E_PUSH_CHUNK" }, what);
    assert.equal(state.numBuffersInUse, 0, what);
    assert.equal(state.allArrived, false, what);
    assert.equal(pushWhole(state, 0, 0, 3), "complete", what);
    assert.deepEqual(state.takeNext(), gradientOf(0, 3), what);
  }
});

test("a stream that ends early is E_PUSH_INCOMPLETE and not counted", () => {
  const state = stateOf();
  state.openStep(0);
  const push = begin(state, chunkOf(0, 0, 1, 0, 23));
  push.accept(chunkOf(0, 0, 1, 0, 23));
  assert.throws(() => push.finish(), {
    code: "E_PUSH_INCOMPLETE",
    details: { step: 0, group: 0, receivedBytes: 23, rangeBytes },
  });
  assert.equal(state.numBuffersInUse, 0);
  assert.equal(state.takeNext(), undefined);
});

test("steps that are over are stale, steps to come and unknown groups are errors", () => {
  const state = stateOf();
  assert.throws(() => state.begin(chunkOf(0, 0, 1)), { code: "E_PUSH_STEP" });
  state.openStep(4);
  assert.equal(pushWhole(state, 3, 0, 1), "stale");
  assert.throws(() => state.begin(chunkOf(5, 0, 1)), { code: "E_PUSH_STEP" });
  for (const group of [2, -1, 0.5]) {
    assert.throws(() => state.begin(chunkOf(4, group, 1)), { code: "E_PUSH_GROUP" });
  }
  assert.throws(() => state.openStep(5), { code: "E_SHARD_STATE" });
  state.closeStep();
  assert.equal(pushWhole(state, 4, 0, 1), "stale");
  assert.throws(() => state.openStep(4), { code: "E_SHARD_STATE" });
});

test("a push of a step that closes meanwhile is stale, and its bytes do not reach the next step", () => {
  const state = stateOf({ numGroups: 1 });
  state.openStep(0);
  const slow = begin(state, chunkOf(0, 0, 1, 0, 8));
  slow.accept(chunkOf(0, 0, 1, 0, 8));
  state.closeStep();
  state.openStep(1);
  assert.equal(state.numBuffersInUse, 0);
  assert.equal(pushWhole(state, 1, 0, 2), "complete");
  assert.equal(slow.accept(chunkOf(0, 0, 1, 8, 16)), "stale");
  assert.equal(slow.finish(), "stale");
  assert.deepEqual(state.takeNext(), gradientOf(0, 2));
});

test("memory is bounded, and the group whose turn it is always finds a buffer", () => {
  const state = stateOf({ numGroups: 8, maxAssemblies: 3 });
  state.openStep(0);
  assert.equal(pushWhole(state, 0, 5, 1), "complete");
  assert.equal(pushWhole(state, 0, 6, 1), "complete");
  assert.equal(state.begin(chunkOf(0, 7, 1)), "busy");
  assert.equal(state.begin(chunkOf(0, 1, 1)), "busy");
  assert.equal(pushWhole(state, 0, 0, 1), "complete");
  assert.equal(state.numBuffersInUse, 3);
  state.release(state.takeNext() as Uint8Array);
  assert.equal(pushWhole(state, 0, 1, 1), "complete");
});

test("a lease has one buffer at most, and none once it is nobody's", () => {
  const state = stateOf({ numGroups: 2, maxAssemblies: 2 });
  state.openStep(0);
  const first = begin(state, chunkOf(0, 0, 1, 0, 8));
  first.accept(chunkOf(0, 0, 1, 0, 8));
  const second = begin(state, chunkOf(0, 0, 1, 0, 8));
  assert.equal(state.numBuffersInUse, 1);
  assert.throws(() => first.accept(chunkOf(0, 0, 1, 8, 16)), { code: "E_PUSH_INCOMPLETE" });
  assert.throws(() => first.finish(), { code: "E_PUSH_INCOMPLETE" });
  second.accept(chunkOf(0, 0, 1, 0, 8));
  state.abandonPushes([1]);
  assert.equal(state.numBuffersInUse, 0);
  assert.throws(() => second.finish(), { code: "E_PUSH_INCOMPLETE" });
  assert.equal(pushWhole(state, 0, 0, 2), "complete");
});

test("a buffer that becomes free is announced, and reused", () => {
  let numAnnounced = 0;
  const state = new ShardState({
    ...{ shardIndex: 0, rangeBytes, numGroups: 1, maxAssemblies: 2 },
    onBufferFree: () => numAnnounced++,
  });
  state.openStep(0);
  pushWhole(state, 0, 0, 1);
  const first = state.takeNext() as Uint8Array;
  state.release(first);
  assert.equal(numAnnounced, 1);
  state.closeStep();
  state.openStep(1);
  pushWhole(state, 1, 0, 1);
  assert.equal(state.takeNext(), first);
});
