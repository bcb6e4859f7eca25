import type { TensorStates } from "#lib/core/shard-arrays";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { OptimizerStateReader, writeOptimizerState } from "#lib/checkpoint/index";
import { chosenOptimizer } from "#lib/config/index";
import {
  buildParameterLayout,
  type ParameterLayout,
  shardRanges,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import { mastersSha256 } from "#lib/core/masters-hash";
import { readWireSpace } from "#lib/core/wire-space";
import {
  type ChosenOptimizer,
  ShardArithmetic,
  StepUpdate,
  type UpdatedShards,
} from "#lib/optim/index";
import { testValues } from "./compare.js";

/** Flat values by tensor. */
type Tensors = Readonly<Record<string, readonly number[]>>;

/** Steps of another program's optimizer, of tests/fixtures/golden. */
interface Golden<Case> {
  readonly learning_rates: readonly number[];
  readonly start: Tensors;
  readonly gradients: readonly Tensors[];
  readonly cases: readonly (Case & { readonly after: readonly Tensors[] })[];
}

export const readGolden = <Case>(name: string): Golden<Case> =>
  JSON.parse(readFileSync(`tests/fixtures/golden/${name}.json`, "utf8")) as Golden<Case>;

type OptimizerKeys = Parameters<typeof chosenOptimizer>[0];

/** An optimizer as a configuration names it; keys that are not given have their defaults. */
export const optimizerOf = (config: Partial<OptimizerKeys> & { readonly optim: string }) =>
  chosenOptimizer({
    ...{ optim_args: null, weight_decay: 0 },
    ...{ adam_beta1: 0.9, adam_beta2: 0.999, adam_epsilon: 1e-8 },
    ...config,
  });

/** Shards of a space in this thread, with what a step does to them. */
export class OptimizerRun {
  readonly shards: readonly ShardArithmetic[];
  readonly #layout: ParameterLayout;
  readonly #updates: StepUpdate;

  private constructor(
    layout: ParameterLayout,
    shards: readonly ShardArithmetic[],
    updates: StepUpdate,
  ) {
    this.#layout = layout;
    this.shards = shards;
    this.#updates = updates;
  }

  static async start(
    layout: ParameterLayout,
    optimizer: ChosenOptimizer,
    options: {
      readonly numShards?: number;
      readonly withThread?: boolean;
      readonly numUpdates?: number;
      readonly learningRateAt: (completedUpdates: number) => number;
      readonly maxGradNorm?: number;
    },
  ): Promise<OptimizerRun> {
    const { numShards = 1, withThread = false, learningRateAt, maxGradNorm = null } = options;
    const shards = await Promise.all(
      shardRanges(layout, numShards).map(async (range) =>
        ShardArithmetic.create(layout, range, optimizer, { withThread }),
      ),
    );
    const settings = { optimizer, learningRateAt, maxGradNorm };
    const { numUpdates } = options;
    return new OptimizerRun(layout, shards, new StepUpdate(layout, settings, { numUpdates }));
  }

  get tensorStates(): TensorStates {
    return this.#updates.tensorStates;
  }

  /** Values of the whole space, in its order. */
  setMasters(values: Float32Array): void {
    for (const { range, masters } of this.shards) {
      masters.set(values.subarray(range.start, range.end));
    }
  }

  async step(step: number, gradient: Float32Array) {
    const wire = await readWireSpace(this.#layout, async ({ start, end }, into) => {
      into.set(gradient.subarray(start, end));
    });
    const { shards } = this;
    const updated: UpdatedShards = {
      reduce: async () =>
        shards.flatMap((shard) => [
          ...shard.addLastGroup(
            wire.subarray(
              wireOffsetBytes(this.#layout, shard.range.start),
              wireOffsetBytes(this.#layout, shard.range.end),
            ),
            true,
          ),
        ]),
      penalise: async (_step, factor) => {
        const distances = shards.flatMap((shard) => [...shard.addPenalty(factor)]);
        return { distances, squares: shards.flatMap((shard) => [...shard.blockSumsOfSquares()]) };
      },
      measure: async (_step, measurement) => shards.flatMap((shard) => shard.measure(measurement)),
      apply: async (_step, update) => {
        for (const shard of shards) shard.apply(update);
      },
      discard: async () => {},
    };
    return this.#updates.run(updated, { step, loss: 0 });
  }

  /** Of masters, of all that is kept, and of what is published. */
  digests(): Readonly<Record<string, string>> {
    const { shards } = this;
    const slots = Object.keys(shards[0]?.states ?? {});
    const ofSlots = slots.map((slot) => {
      const hash = createHash("sha256");
      for (const { states } of shards) hash.update(bytesOf(states[slot] as Float32Array));
      return [slot, hash.digest("hex")];
    });
    const published = createHash("sha256");
    for (const shard of shards) published.update(shard.publish());
    const ofTensors = Object.entries(this.tensorStates).map(([name, values]) => [
      name,
      createHash("sha256").update(bytesOf(values)).digest("hex"),
    ]);
    return {
      masters: mastersSha256(this.#layout, shards),
      ...Object.fromEntries(ofSlots),
      ...Object.fromEntries(ofTensors),
      published: published.digest("hex"),
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.shards.map(async (shard) => shard.close()));
  }
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** Fails where a master is further than 1e-6 of its magnitude from the other program's. */
export async function assertSteps(
  { learning_rates: rates, start, gradients }: Golden<unknown>,
  after: readonly Tensors[],
  optimizer: ChosenOptimizer,
  shapes: Readonly<Record<string, readonly number[]>>,
): Promise<OptimizerRun> {
  const tensors = Object.entries(shapes).map(([name, shape]) => ({ name, shape }));
  const layout = buildParameterLayout(tensors, "float32");
  const flat = (values: Tensors): Float32Array => {
    const space = new Float32Array(layout.numElements);
    for (const { name, offset } of layout.tensors) space.set(values[name] ?? [], offset);
    return space;
  };
  const learningRateAt = (updates: number): number => rates[updates] as number;
  const run = await OptimizerRun.start(layout, optimizer, { learningRateAt });
  run.setMasters(flat(start));
  for (const [step, gradient] of gradients.entries()) {
    await run.step(step, flat(gradient));
    for (const { name, offset } of layout.tensors) {
      for (const [i, value] of (after[step]?.[name] ?? []).entries()) {
        const got = run.shards[0]?.masters[offset + i] as number;
        const isClose = Math.abs(got - value) <= 1e-6 * Math.abs(value);
        assert.ok(isClose, `step ${step + 1}, ${name}[${i}]: ${got}, not ${value}`);
      }
    }
  }
  return run;
}

/** Tensors that go over blocks in every way: rows of many blocks, many rows of a block, both with ends in between. */
const layout = buildParameterLayout(
  [
    { name: "wide", shape: [2, 70_001] },
    { name: "square", shape: [301, 299] },
    { name: "tall", shape: [9_000, 10] },
    { name: "small", shape: [5, 7] },
    { name: "stack", shape: [3, 250, 81] },
    { name: "long-vector", shape: [66_000] },
    { name: "vector", shape: [1_000] },
  ],
  "bfloat16",
);
const numSteps = 6;

async function startRun(
  optimizer: ChosenOptimizer,
  options: {
    readonly numShards: number;
    readonly withThread?: boolean;
    readonly numUpdates?: number;
  },
): Promise<OptimizerRun> {
  const learningRateAt = (updates: number): number => 0.01 / (1 + updates);
  return OptimizerRun.start(layout, optimizer, { ...options, learningRateAt, maxGradNorm: 50 });
}

async function train(run: OptimizerRun, [from, to]: readonly [number, number]): Promise<void> {
  for (let step = from; step < to; step++) {
    await run.step(step, testValues(layout.numElements, 100 + step));
  }
}

async function trained(optimizer: ChosenOptimizer, numShards: number, withThread: boolean) {
  const run = await startRun(optimizer, { numShards, withThread });
  run.setMasters(testValues(layout.numElements, 1));
  await train(run, [0, numSteps]);
  await run.close();
  return run.digests();
}

/** Tests that hold of every optimizer. */
export function testShardsAndResume(name: string, optimizer: ChosenOptimizer): void {
  let ofOneShard: ReturnType<typeof trained> | undefined;
  const expectedDigests = () => (ofOneShard ??= trained(optimizer, 1, false));

  test(`1, 2 and 3 shards, of one thread or two, have the same bits (${name})`, async () => {
    const expected = await expectedDigests();
    for (const [numShards, withThread] of [
      [1, true],
      [2, false],
      [3, true],
    ] as const) {
      assert.deepEqual(await trained(optimizer, numShards, withThread), expected);
    }
  });

  test(`a run that is resumed ends like one that is not (${name})`, async (t) => {
    const expected = await expectedDigests();
    const before = await startRun(optimizer, { numShards: 2 });
    before.setMasters(testValues(layout.numElements, 1));
    await train(before, [0, 3]);
    const reader = await savedState(t, before);
    const after = await startRun(optimizer, { numShards: 3, numUpdates: 3 });
    for (const { range, masters, states } of after.shards) {
      await reader.readMasters(range, masters);
      await reader.readStates(range, states);
    }
    await reader.readTensorStates(after.tensorStates);
    await train(after, [3, numSteps]);
    assert.deepEqual(after.digests(), expected);
  });
}

/** What a checkpoint has of a run. */
export async function savedState(t: TestContext, run: OptimizerRun): Promise<OptimizerStateReader> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-optimizer-"));
  t.after(async () => rm(directory, { recursive: true }));
  await writeOptimizerState(directory, run.shards, run.tensorStates);
  const reader = await OptimizerStateReader.open(directory);
  t.after(async () => reader.close());
  return reader;
}

/** A fresh run of one shard over the tests' space. */
export const freshRun = async (optimizer: ChosenOptimizer): Promise<OptimizerRun> =>
  startRun(optimizer, { numShards: 1 });
