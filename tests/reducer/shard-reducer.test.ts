import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { PushAssembly } from "#coordinator/reducer/shard-state";
import { ShardReducer } from "#coordinator/reducer/shard-reducer";
import { adamW, smallLayout, updateOf, wireGradient } from "./gradients.js";

const layout = smallLayout(1, "bfloat16");
const whole = { start: 0, end: layout.numElements };

async function reducerOf(gradientGroups: number): Promise<ShardReducer> {
  const reducer = await ShardReducer.create({
    shardIndex: 0,
    layout,
    range: whole,
    optimizer: adamW,
    gradientGroups,
  });
  reducer.arithmetic.masters.fill(0.5);
  reducer.publishInitial(0);
  return reducer;
}

function push(reducer: ShardReducer, step: number, group: number, bytes: Uint8Array): string {
  const chunk = { step, group, lease: group, offset: 0, checksum: 0, payload: bytes };
  const begun = reducer.state.begin(chunk);
  if (!(begun instanceof PushAssembly)) return begun;
  return begun.accept(chunk) ?? begun.finish();
}

const sha = (array: Float32Array | Uint8Array): Buffer =>
  Buffer.from(array.buffer, array.byteOffset, array.byteLength);

test("any order of arrival and any time of adding give the same sums, masters and published bytes", async () => {
  const numGroups = 4;
  const gradients = [0, 1, 2, 3].map((seed) => wireGradient(layout, seed));
  const run = async (order: readonly number[], addEarly: readonly boolean[]) => {
    const reducer = await reducerOf(numGroups);
    reducer.openStep(0);
    order.forEach((group, i) => {
      push(reducer, 0, group, gradients[group] as Uint8Array);
      if (addEarly[i] === true) reducer.addArrived();
    });
    const blockSums = reducer.reduce(0);
    reducer.apply(0, updateOf(1, 0.5));
    return {
      blockSums,
      masters: sha(reducer.arithmetic.masters),
      published: Buffer.from(reducer.published.get(1).bytes),
    };
  };
  const expected = await run([0, 1, 2, 3], [true, true, true, true]);
  // The order of float32 additions matters for these gradients, or the property would say nothing.
  const swapped = await reducerOf(numGroups);
  swapped.openStep(0);
  [3, 1, 0, 2].forEach((source, group) => push(swapped, 0, group, gradients[source] as Uint8Array));
  assert.notDeepEqual(swapped.reduce(0), expected.blockSums);

  await fc.assert(
    fc.asyncProperty(
      fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
      fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
      async (order, addEarly) => {
        const actual = await run(order, addEarly);
        assert.deepEqual(actual.blockSums, expected.blockSums);
        assert.ok(actual.masters.equals(expected.masters), "masters");
        assert.ok(actual.published.equals(expected.published), "published");
      },
    ),
    { numRuns: 20 },
  );
});

test("nothing is reduced before every group is here, and nothing applied before it is reduced", async () => {
  const reducer = await reducerOf(2);
  const misuse = { code: "E_SHARD_STATE" };
  assert.throws(() => reducer.reduce(0), misuse);
  reducer.openStep(0);
  push(reducer, 0, 1, wireGradient(layout, 1));
  const before = Buffer.from(sha(reducer.arithmetic.masters));
  assert.throws(() => reducer.reduce(0), misuse);
  assert.throws(() => reducer.apply(0, updateOf(1)), misuse);
  assert.throws(() => reducer.publishInitial(1), misuse);
  push(reducer, 0, 0, wireGradient(layout, 0));
  assert.throws(() => reducer.reduce(1), misuse);
  reducer.reduce(0);
  assert.ok(before.equals(sha(reducer.arithmetic.masters)));
  reducer.apply(0, updateOf(1));
  assert.throws(() => reducer.apply(0, updateOf(2)), misuse);
  assert.ok(!before.equals(sha(reducer.arithmetic.masters)));
});

test("a discarded step leaves no trace in the next one", async () => {
  const step = async (reducer: ShardReducer, number: number) => {
    reducer.openStep(number);
    for (const group of [0, 1]) push(reducer, number, group, wireGradient(layout, group));
    reducer.reduce(number);
    reducer.apply(number, updateOf(1));
    return Buffer.from(sha(reducer.arithmetic.masters));
  };
  const expected = await step(await reducerOf(2), 0);
  for (const discardAfter of ["partial", "reduced"] as const) {
    const reducer = await reducerOf(2);
    reducer.openStep(0);
    push(reducer, 0, 0, new Uint8Array(reducer.arithmetic.wireBytes).fill(0xff));
    reducer.addArrived();
    if (discardAfter === "reduced") {
      push(reducer, 0, 1, wireGradient(layout, 5));
      assert.ok(reducer.reduce(0).some((sum) => !Number.isFinite(sum)));
    }
    reducer.discard(0);
    assert.equal(push(reducer, 0, 0, wireGradient(layout, 0)), "stale");
    assert.deepEqual(reducer.published.versions, [0]);
    assert.ok(expected.equals(await step(reducer, 1)), discardAfter);
  }
});

test("the two newest versions are held; an older one is refused, in the middle of a pull too", async () => {
  const reducer = await reducerOf(1);
  const first = reducer.published.get(0);
  const advance = (step: number) => {
    reducer.openStep(step);
    push(reducer, step, 0, wireGradient(layout, step));
    reducer.reduce(step);
    reducer.apply(step, updateOf(step + 1));
  };
  const copy = Buffer.from(first.bytes);
  advance(0);
  reducer.published.assertHeld(first);
  assert.ok(copy.equals(first.bytes), "unchanged while held");
  advance(1);
  assert.deepEqual(reducer.published.versions, [1, 2]);
  const gone = { code: "E_VERSION_NOT_PUBLISHED", retryable: true };
  assert.throws(() => reducer.published.assertHeld(first), gone);
  assert.throws(() => reducer.published.get(0), {
    ...gone,
    details: { version: 0, published: [1, 2] },
  });
});

test("nothing stays of what was loaded in part", async () => {
  const reducer = await ShardReducer.create({
    ...{ shardIndex: 0, layout, range: whole, optimizer: adamW, gradientGroups: 1 },
  });
  const { arithmetic } = reducer;
  reducer.startOver();
  // A coordinator, or a copy of the shard, that dies amid it publishes nothing.
  arithmetic.keptBytes.fill(1);
  reducer.startOver();
  for (const values of [arithmetic.masters, ...Object.values(arithmetic.states)]) {
    assert.ok(values.every((value) => Object.is(value, 0)));
  }
});

test("others have their turn while what a shard keeps is digested", async () => {
  const reducer = await reducerOf(1);
  let numTurns = 0;
  setImmediate(() => {
    numTurns += 1;
  });
  const digest = await reducer.digest();
  assert.equal(numTurns, 1);
  const kept = sha(reducer.arithmetic.keptBytes);
  assert.equal(digest, createHash("sha256").update(kept).digest("hex"));
});
