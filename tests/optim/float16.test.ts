import assert from "node:assert/strict";
import { test } from "node:test";
import { float16ToFloat32, float32ToFloat16 } from "#lib/core/bf16";
import { blockElements, buildParameterLayout } from "#lib/core/parameter-layout";
import { ShardArithmetic } from "#lib/optim/index";
import { float16Bits } from "./oracle.js";

// The kernels of a shard against the scalar conversions, bit for bit.

async function shardOf(numBlocks: number): Promise<ShardArithmetic> {
  const layout = buildParameterLayout(
    [{ name: "matrix", shape: [numBlocks, blockElements] }],
    "float16",
  );
  const range = { start: 0, end: layout.numElements };
  return ShardArithmetic.create(layout, range, {
    name: "sgd",
    settings: { momentum: 0, dampening: 0, nesterov: false, weightDecay: 0 },
  });
}

const wordsOf = (values: Float32Array): Uint32Array =>
  new Uint32Array(values.buffer, values.byteOffset, values.length);
const bytesOf = (halves: Uint16Array): Uint8Array => new Uint8Array(halves.buffer);
const allHalves = Uint16Array.from({ length: blockElements }, (_, bits) => bits);

test("every half widens to its float32, as a gradient and in a sum", async () => {
  const shard = await shardOf(1);
  const expected = float16ToFloat32(allHalves);
  shard.addGroup(bytesOf(allHalves), true);
  assert.deepEqual(wordsOf(shard.gradientSum), wordsOf(expected));
  const next = Uint16Array.from(allHalves, (bits) => (bits * 31 + 7) & 0xffff);
  shard.addGroup(bytesOf(next), false);
  const added = float16ToFloat32(next);
  shard.gradientSum.forEach((sum, i) => {
    const wanted = Math.fround((expected[i] as number) + (added[i] as number));
    if (!Object.is(sum, wanted)) assert.fail(`${expected[i]} + ${added[i]} gave ${sum}`);
  });
});

/** float32 words that tell roundings apart. */
function tellingWords(length: number): Uint32Array {
  const words = new Uint32Array(length);
  let at = 0;
  // Both neighbours of each half, the number between them, and that number's neighbours.
  for (let bits = 0; bits < 0x7c00; bits++) {
    const [low, high] = [bits, bits + 1].map(
      (half) => float16ToFloat32(Uint16Array.of(half))[0] as number,
    ) as [number, number];
    const border = bits === 0x7bff ? 65_520 : (low + high) / 2;
    const middle = wordsOf(Float32Array.of(border))[0] as number;
    for (const word of [middle - 1, middle, middle + 1]) {
      words[at++] = word;
      words[at++] = (word | 0x80000000) >>> 0;
    }
  }
  // Infinities, NaNs with and without a payload that a half holds, subnormal float32 numbers.
  for (const word of [0x7f800000, 0x7f800001, 0x7fa00000, 0x7fc00000, 0x7fffffff, 0, 1, 0x7fffff]) {
    words[at++] = word;
    words[at++] = (word | 0x80000000) >>> 0;
  }
  let state = 1;
  for (; at < length; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[at] = state;
  }
  return words;
}

test("float32 rounds to the half that is nearest, or to infinity; a NaN stays one", async () => {
  const shard = await shardOf(8);
  const words = tellingWords(8 * blockElements);
  wordsOf(shard.masters).set(words);
  const published = shard.publish();
  const halves = new Uint16Array(published.buffer, published.byteOffset, words.length);
  const scalar = float32ToFloat16(new Float32Array(words.buffer));
  halves.forEach((half, i) => {
    const word = words[i] as number;
    if (half !== float16Bits(word)) assert.fail(`${word.toString(16)}: ${half.toString(16)}`);
    if (half !== scalar[i]) assert.fail(`${word.toString(16)}: the scalar form differs`);
  });
});

test("an update publishes the masters as halves", async () => {
  const shard = await shardOf(2);
  shard.masters.forEach((_, i) => {
    shard.masters[i] = Math.fround(Math.sin(i) * 3);
  });
  const gradient = Float32Array.from(shard.masters, (_, i) => Math.cos(i));
  shard.addGroup(bytesOf(float32ToFloat16(gradient)), true);
  shard.apply({ learningRate: 0.01, updateNumber: 1, gradientScale: 1 / 3 });
  const published = shard.publish();
  const halves = new Uint16Array(published.buffer, published.byteOffset, shard.masters.length);
  assert.deepEqual(halves, float32ToFloat16(Float32Array.from(shard.masters)));
  assert.notDeepEqual(halves, float32ToFloat16(gradient));
});

test("an infinity or a NaN of a group shows in its block's sum of squares only", async () => {
  for (const bits of [0x7c00, 0xfc00, 0x7e00, 0x7c01]) {
    const shard = await shardOf(2);
    const halves = new Uint16Array(2 * blockElements).fill(0x3c00);
    shard.addGroup(bytesOf(halves), true);
    halves[blockElements + 5] = bits;
    shard.addGroup(bytesOf(halves), false);
    halves[blockElements + 5] = bits ^ 0x8000;
    const sums = shard.addLastGroup(bytesOf(halves), false);
    assert.deepEqual([...sums].map(Number.isFinite), [true, false]);
  }
});
