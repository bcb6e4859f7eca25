import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { buildParameterLayout, type ParameterLayout } from "#lib/core/parameter-layout";
import { RandomStream } from "#lib/core/random";
import { dynamicMap } from "#lib/optim/optimizers/dynamic-map";
import { testValues } from "#tests/support/compare";
import { OptimizerRun, optimizerOf, testShardsAndResume } from "#tests/support/optimizer-runs";

/** Written by tests/reference/make_adamw_8bit_fixture.py. */
const golden = JSON.parse(readFileSync("tests/fixtures/golden/adamw_8bit.json", "utf8")) as {
  readonly config: object;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly learning_rates: readonly number[];
  readonly every: number;
  readonly after: readonly Readonly<Record<string, readonly number[]>>[];
  readonly signed_map: readonly number[];
  readonly unsigned_map: readonly number[];
  readonly matrix: {
    readonly first_moment_codes: string;
    readonly first_moment_absmax: readonly number[];
    readonly second_moment_codes: string;
    readonly second_moment_absmax: readonly number[];
  };
};

const chunkElements = 256;
const adamW = (config: object) => optimizerOf({ optim: "adamw_bnb_8bit", ...config });

/** The space's values, each tensor's by a seed of its own. */
function valuesOf({ tensors, numElements }: ParameterLayout, seed: number): Float32Array {
  const values = new Float32Array(numElements);
  for (const [i, name] of Object.keys(golden.shapes).entries()) {
    const slot = tensors.find((each) => each.name === name);
    assert.ok(slot !== undefined);
    values.set(testValues(slot.size, seed + i), slot.offset);
  }
  return values;
}

function codesOf(words: Float32Array | undefined, numElements: number): Buffer {
  assert.ok(words !== undefined);
  return Buffer.from(words.buffer, words.byteOffset, numElements);
}

/** Factors of the chunks of a tensor at the beginning of the space. */
const absmaxOf = (factors: Float32Array | undefined, numChunks: number): number[] =>
  Array.from({ length: numChunks }, (_, chunk) => factors?.[2 * chunk] ?? Number.NaN);

test("the maps are those of bitsandbytes' formula", () => {
  for (const [isSigned, expected] of [
    [true, golden.signed_map],
    [false, golden.unsigned_map],
  ] as const) {
    const { values } = dynamicMap(isSigned);
    assert.equal(values.length, 256);
    for (const [code, value] of expected.entries()) {
      assert.ok(Math.abs((values[code] ?? 0) - value) <= 1.2e-7 * Math.abs(value), `code ${code}`);
    }
  }
});

test("where a magnitude's bits say to look, its code is the first or the second", () => {
  for (const isSigned of [true, false]) {
    const { midpoints, starts } = dynamicMap(isSigned);
    for (const [i, start] of starts.entries()) {
      const next = starts[i + 1] ?? start;
      assert.ok(next - start <= 1, `${i}: ${start}, then ${next}`);
    }
    const bits = new Uint32Array(midpoints.slice(0, -1).buffer);
    const startsOf = [...bits].map((each) => (each >>> 15) - (103 << 8));
    assert.equal(new Set(startsOf).size, startsOf.length);
    assert.ok(startsOf.every((start) => start >= 0 && start < starts.length));
  }
});

test("ten steps of 8-bit AdamW are those of the written reference", async () => {
  const tensors = Object.entries(golden.shapes).map(([name, shape]) => ({ name, shape }));
  const layout = buildParameterLayout(tensors, "float32");
  const learningRateAt = (updates: number): number => golden.learning_rates[updates] as number;
  const run = await OptimizerRun.start(layout, adamW(golden.config), { learningRateAt });
  run.setMasters(valuesOf(layout, 1));
  const [shard] = run.shards;
  assert.ok(shard !== undefined);
  for (const [step, expected] of golden.after.entries()) {
    await run.step(step, valuesOf(layout, 100 * (1 + step)));
    for (const { name, offset } of layout.tensors) {
      for (const [i, value] of (expected[name] ?? []).entries()) {
        const got = shard.masters[offset + i * golden.every] as number;
        const isClose = Math.abs(got - value) <= 1e-6 * Math.abs(value);
        assert.ok(isClose, `step ${step + 1}, ${name}[${i * golden.every}]: ${got}, not ${value}`);
      }
    }
  }
  const { states } = shard;
  const numElements = 70 * 65;
  const numChunks = Math.ceil(numElements / chunkElements);
  for (const moment of ["first_moment", "second_moment"] as const) {
    const codes = codesOf(states[`${moment}_codes`], numElements).toString("base64");
    assert.equal(codes, golden.matrix[`${moment}_codes`]);
    const absmax = absmaxOf(states[`${moment}_absmax`], numChunks);
    assert.deepEqual(absmax, golden.matrix[`${moment}_absmax`]);
  }
  assert.deepEqual(Object.keys(run.tensorStates), [
    ...["small.first_moment", "small.second_moment"],
    ...["vector.first_moment", "vector.second_moment"],
  ]);
});

test("moments are rounded by no more than bitsandbytes' tests allow", async () => {
  const numElements = 4 * 65_536;
  const layout = buildParameterLayout([{ name: "w", shape: [4, 65_536] }], "float32");
  const random = new RandomStream(1, "test", 0);
  const uniform = Float32Array.from({ length: numElements }, () => random.nextFloat64());
  const normal = Float32Array.from({ length: numElements }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random.nextFloat64()));
    return radius * Math.cos(2 * Math.PI * random.nextFloat64());
  });
  // Without memory of steps before, the moments are the gradient and its square.
  const optimizer = adamW({ adam_beta1: 0, adam_beta2: 0 });
  for (const { gradient, moment, expected, absolute, relative } of [
    {
      ...{ gradient: normal, moment: "first_moment", expected: normal },
      ...{ absolute: 0.011, relative: 0.018 },
    },
    {
      ...{ gradient: uniform, moment: "first_moment", expected: uniform },
      ...{ absolute: 0.0036, relative: 0.015 },
    },
    {
      ...{ gradient: uniform.map(Math.sqrt), moment: "second_moment", expected: uniform },
      ...{ absolute: 0.0023, relative: 0.012 },
    },
  ]) {
    const run = await OptimizerRun.start(layout, optimizer, { learningRateAt: () => 0 });
    await run.step(0, gradient);
    const [shard] = run.shards;
    const { values } = dynamicMap(moment === "first_moment");
    const codes = codesOf(shard?.states[`${moment}_codes`], numElements);
    const factors = absmaxOf(shard?.states[`${moment}_absmax`], numElements / chunkElements);
    let [absoluteSum, relativeSum] = [0, 0];
    for (const [i, value] of expected.entries()) {
      const factor = factors[Math.floor(i / chunkElements)] as number;
      const error = Math.abs((values[codes[i] as number] as number) * factor - value);
      absoluteSum += error;
      relativeSum += error / (Math.abs(value) + 1e-8);
    }
    const means = [absoluteSum / numElements, relativeSum / numElements];
    assert.ok((means[0] as number) < absolute, `${moment}: ${means.join(", ")}`);
    assert.ok((means[1] as number) < relative, `${moment}: ${means.join(", ")}`);
  }
});

testShardsAndResume("8-bit AdamW", adamW({ weight_decay: 0.1 }));

test("moments take a quarter of float32's memory", async () => {
  const layout = buildParameterLayout([{ name: "w", shape: [4, 65_536] }], "float32");
  const run = await OptimizerRun.start(layout, adamW({}), { learningRateAt: () => 0 });
  const states = Object.values(run.shards[0]?.states ?? {});
  const bytes = states.reduce((sum, { byteLength }) => sum + byteLength, 0);
  assert.equal(bytes, layout.numElements * 2 * (1 + 1 / 32));
});
