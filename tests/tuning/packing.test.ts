import assert from "node:assert/strict";
import { test } from "node:test";
import type * as tf from "@tensorflow/tfjs-core";
import { ModelWeights } from "#lib/checkpoint/index";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { createModel } from "#lib/models/index";
import createEngine from "#lib/tuning/engine";
import { type Argument, compileFunction } from "#tests/support/compiled-function";
import { assertClose } from "#tests/support/compare";
import { tinyLlamaConfig, tinyLlamaDirectory, tinyLlamaJob } from "#tests/support/tiny-llama";
import { causalJob, tokensOf } from "#tests/support/batches";

const sequenceLength = 24;

/** Examples of ragged lengths; the first tokens of each are a prompt, which is no target. */
const examples = [7, 11, 5, 13, 9, 3, 8, 16].map((length, example) => ({
  tokens: Array.from({ length }, (_, i) => (example * 37 + i * 11 + i * i * 5) % 160),
  promptTokens: example % 3,
}));
const supervised = examples.reduce((sum, e) => sum + e.tokens.length - 1 - e.promptTokens, 0);

/** Lays examples into rows; each inner list shares a row. */
function batchOf(rows: readonly (readonly number[])[]): Batch {
  const size = rows.length * sequenceLength;
  const tokens = new Int32Array(size);
  const targets = new Int32Array(size).fill(ignoredTarget);
  const segments = new Int32Array(size);
  const positions = new Int32Array(size);
  rows.forEach((members, row) => {
    let at = row * sequenceLength;
    members.forEach((member, index) => {
      const { tokens: ids, promptTokens } = examples[member] as (typeof examples)[number];
      ids.forEach((id, i) => {
        tokens[at + i] = id;
        segments[at + i] = index + 1;
        positions[at + i] = i;
        if (i >= promptTokens && i + 1 < ids.length) targets[at + i] = ids[i + 1] as number;
      });
      at += ids.length;
    });
  });
  return { numRows: rows.length, fields: { tokens, targets, segments, positions } };
}

async function jobOf(microBatchSize: number): Promise<{ job: WorkerJob; wireBytes: Uint8Array }> {
  const { job, wireBytes } = await tinyLlamaJob("fp32", microBatchSize);
  const fields = causalJob({ hasSegments: true });
  const packed = { ...job, ...fields, sequenceLength, evalBatchSize: microBatchSize };
  return { job: packed, wireBytes };
}

/** Loss sum and gradient of some batches, one after another. */
async function run(batches: readonly Batch[]) {
  const { job, wireBytes } = await jobOf((batches[0] as Batch).numRows);
  const engine = await createEngine(job);
  try {
    engine.loadParameters(wireBytes);
    const gradients = new Uint8Array(wireBytes.byteLength);
    const sums = batches.map((batch, index) => {
      const out = index === batches.length - 1 ? gradients : undefined;
      return engine.accumulate(batch, 1 / supervised, index === 0, out);
    });
    return {
      lossSum: sums.reduce((sum, part) => sum + part.lossSum, 0),
      weight: sums.reduce((sum, part) => sum + part.weight, 0),
      gradients: new Float32Array(gradients.buffer),
    };
  } finally {
    engine.close();
  }
}

const alone = examples.map((_, index) => [index]);

test("packed rows have the loss and the gradient of rows of their own", async () => {
  const unpacked = await run(alone.map((row) => batchOf([row])));
  const packed = await run([batchOf([[0, 1, 2], [3, 4], [5, 6], [7]])]);
  assert.equal(unpacked.weight, supervised);
  assert.equal(packed.weight, supervised);
  assert.ok(Math.abs(packed.lossSum / unpacked.lossSum - 1) < 1e-5);
  assertClose(packed.gradients, unpacked.gradients, 1e-5, "gradient");
});

test("8 x 1 = 4 x 2 = 2 x 4 = 1 x 8, with ragged lengths and masked labels", async () => {
  const whole = await run([batchOf(alone)]);
  for (const numRows of [1, 2, 4]) {
    const batches = Array.from({ length: alone.length / numRows }, (_, i) =>
      batchOf(alone.slice(i * numRows, (i + 1) * numRows)),
    );
    const parts = await run(batches);
    assert.ok(Math.abs(parts.lossSum / whole.lossSum - 1) < 1e-6);
    assertClose(parts.gradients, whole.gradients, 1e-6, `${numRows} rows at a time`);
  }
});

test("a batch without a field that the job declares, or with another one, is refused by its name", async () => {
  const { fields } = batchOf(alone.slice(0, 4));
  const { segments, ...bare } = fields;
  await assert.rejects(run([{ numRows: 4, fields: bare }]), {
    code: "E_MESSAGE_INVALID",
    message: /segments is missing/,
  });
  const more = { ...fields, tokenTypes: segments as Int32Array };
  await assert.rejects(run([{ numRows: 4, fields: more }]), /tokenTypes is not declared/);
  const short = { ...fields, targets: new Int32Array(4) };
  await assert.rejects(run([{ numRows: 4, fields: short }]), /targets has 4 values, not 96/);
});

test("changing one packed example leaves the others' hidden states bit-equal", async () => {
  const model = createModel(tinyLlamaConfig);
  const weights = await ModelWeights.open(tinyLlamaDirectory);
  const args: Argument[] = [];
  for (const { name, shape } of model.weights) {
    args.push({ data: await weights.readFloat32(name), shape });
  }
  await weights.close();
  const hidden = compileFunction((tokens, segments, positions, ...tensors) => {
    const byName = new Map(model.weights.map(({ name }, i) => [name, tensors[i] as tf.Tensor]));
    return model.hiddenStates((name) => byName.get(name) as tf.Tensor, {
      tokens: tokens as tf.Tensor2D,
      segments: segments as tf.Tensor2D,
      positions: positions as tf.Tensor2D,
    });
  });
  const packed = batchOf([[0, 1, 2]]);
  const [tokens, { segments, positions }] = [tokensOf(packed), packed.fields];
  const statesOf = (ids: Int32Array): Float32Array => {
    const shape = [1, sequenceLength];
    const inputs = [ids, segments, positions].map((data) => ({ data: data as Int32Array, shape }));
    return hidden(...inputs, ...args)[0]?.data as Float32Array;
  };
  const before = statesOf(tokens);
  const width = before.length / sequenceLength;
  // The middle one of three: tokens 7 to 17.
  const changed = tokens.map((id, i) => (i >= 7 && i < 18 ? (id + 1) % 160 : id));
  const after = statesOf(changed);
  const part = (states: Float32Array, from: number, to: number) =>
    states.slice(from * width, to * width);
  assert.deepEqual(part(after, 0, 7), part(before, 0, 7));
  assert.deepEqual(part(after, 18, 23), part(before, 18, 23));
  assert.notDeepEqual(part(after, 7, 18), part(before, 7, 18));
});
