import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import type { Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout, wireOffsetBytes } from "#lib/core/parameter-layout";
import { passPieces, readWireSpace, wirePieces } from "#lib/core/wire-space";
import { createModel } from "#lib/models/index";
import createEngine from "#lib/tuning/engine";
import { assertClose, relativeError, testValues } from "#tests/support/compare";
import {
  batchOf,
  readSlot,
  tinyLlamaCase,
  tinyLlamaDirectory,
  tinyLlamaJob,
} from "#tests/support/tiny-llama";
import { causalJob, targetsOf, tokensOf } from "#tests/support/batches";

const batch = batchOf(tinyLlamaCase);
const numTargets = targetsOf(batch).filter((target) => target >= 0).length;

/** One row of a batch as a batch. */
function row(whole: Batch, index: number): Batch {
  const width = tokensOf(whole).length / whole.numRows;
  return {
    numRows: 1,
    fields: {
      tokens: tokensOf(whole).slice(index * width, (index + 1) * width),
      targets: targetsOf(whole).slice(index * width, (index + 1) * width),
    },
  };
}

test("loss and every gradient of a Llama equal transformers' in fp32", async () => {
  const { job, wireBytes } = await tinyLlamaJob("fp32", batch.numRows);
  const engine = await createEngine(job);
  const expected = await openSafetensors(join(tinyLlamaDirectory, "expected.safetensors"));
  try {
    engine.loadParameters(wireBytes);
    const gradients = new Uint8Array(new SharedArrayBuffer(wireBytes.byteLength));
    const { lossSum, weight } = engine.accumulate(batch, 1 / numTargets, true, gradients);
    assert.equal(weight, numTargets);
    assert.ok(Math.abs(lossSum / weight / tinyLlamaCase.loss - 1) < 1e-6);
    for (const slot of job.layout.tensors) {
      assertClose(
        readSlot(job.layout, slot.name, gradients),
        await expected.readFloat32(`grad.${slot.name}`),
        1e-5,
        slot.name,
      );
    }
    assert.deepEqual(
      [...engine.generate(Int32Array.from(tinyLlamaCase.greedy.prompt), 12, [])],
      tinyLlamaCase.greedy.continuation,
    );
  } finally {
    engine.close();
    await expected.close();
  }
});

test("rows accumulated one by one give the gradient of the whole batch", async () => {
  const whole = await tinyLlamaJob("fp32", batch.numRows);
  const single = await tinyLlamaJob("fp32", 1);
  const wholeEngine = await createEngine(whole.job);
  const singleEngine = await createEngine(single.job);
  const expected = new Uint8Array(whole.wireBytes.byteLength);
  const actual = new Uint8Array(whole.wireBytes.byteLength);
  try {
    wholeEngine.loadParameters(whole.wireBytes);
    singleEngine.loadParameters(single.wireBytes);
    // What an earlier group left behind must not count.
    singleEngine.accumulate(row(batch, 2), 7, true);
    const total = wholeEngine.accumulate(batch, 1 / numTargets, true, expected).lossSum;
    let sum = 0;
    for (let index = 0; index < batch.numRows; index++) {
      const out = index === batch.numRows - 1 ? actual : undefined;
      sum += singleEngine.accumulate(row(batch, index), 1 / numTargets, index === 0, out).lossSum;
    }
    assert.ok(Math.abs(sum / total - 1) < 1e-6);
    assertClose(new Float32Array(actual.buffer), new Float32Array(expected.buffer), 1e-6, "sum");
    const evaluated = wholeEngine.evaluate(batch);
    assert.ok(Math.abs(evaluated.lossSum / total - 1) < 1e-6);
  } finally {
    wholeEngine.close();
    singleEngine.close();
  }
});

test("bf16 stays near fp32 and two engines give the same bits", async () => {
  const { job, wireBytes } = await tinyLlamaJob("bf16", batch.numRows);
  const engines = [await createEngine(job), await createEngine(job)];
  const expected = await openSafetensors(join(tinyLlamaDirectory, "expected.safetensors"));
  const results = engines.map(() => new Uint8Array(wireBytes.byteLength));
  try {
    engines.forEach((engine, index) => {
      engine.loadParameters(wireBytes);
      const { lossSum } = engine.accumulate(batch, 1 / numTargets, true, results[index]);
      assert.ok(Math.abs(lossSum / numTargets / tinyLlamaCase.loss - 1) < 5e-3);
    });
    assert.deepEqual(results[0], results[1]);
    for (const slot of job.layout.tensors) {
      const actual = readSlot(job.layout, slot.name, results[0] as Uint8Array);
      const error = relativeError(actual, await expected.readFloat32(`grad.${slot.name}`));
      assert.ok(error < 0.05, `${slot.name}: ${error}`);
    }
  } finally {
    for (const engine of engines) engine.close();
    await expected.close();
  }
});

test("parameters are copied: changing the buffer after a load changes nothing", async () => {
  const { job, wireBytes } = await tinyLlamaJob("fp32", batch.numRows);
  const engine = await createEngine(job);
  try {
    // At every 16-byte offset, 64-byte aligned ones among them, where TensorFlow could borrow.
    for (let offset = 0; offset <= 64; offset += 16) {
      const moved = new Uint8Array(new SharedArrayBuffer(wireBytes.byteLength + 64)).subarray(
        offset,
        offset + wireBytes.byteLength,
      );
      moved.set(wireBytes);
      engine.loadParameters(moved);
      const before = engine.evaluate(batch).lossSum;
      moved.fill(0);
      assert.equal(engine.evaluate(batch).lossSum, before);
    }
  } finally {
    engine.close();
  }
});

test("weights that come in pieces are those that come at once", async () => {
  // Two pieces: a table of more than 32 MiB, and the layers.
  const modelConfig = {
    ...{ model_type: "gpt2", vocab_size: 30_000, n_embd: 320, n_layer: 1, n_head: 4 },
    n_positions: 16,
  };
  const model = createModel(modelConfig, { task: "causal-lm" });
  const layout = buildParameterLayout(model.weights, "float32");
  const job: WorkerJob = {
    ...{ jobId: "pieces", modelConfig, layout, precision: "fp32", sequenceLength: 8 },
    ...causalJob(),
    ...{ microBatchSize: 1, evalBatchSize: 1, generationLength: 0, threadsPerWorker: 1 },
    parameters: { kind: "full" },
  };
  const wireBytes = await readWireSpace(layout, async ({ start, end }, into) => {
    into.set(testValues(end - start, start + 1));
  });
  const tokens = Int32Array.from({ length: 8 }, (_, i) => i * 3001);
  const rows = { numRows: 1, fields: { tokens, targets: tokens.map((id) => id + 1) } };
  const engine = await createEngine(job);
  try {
    engine.loadParameters(wireBytes);
    const expected = engine.evaluate(rows);
    engine.loadParameters(new Uint8Array(wireBytes.length));
    assert.notEqual(engine.evaluate(rows).lossSum, expected.lossSum);
    const pieces = wirePieces(layout);
    assert.equal(pieces.length, 2);
    await passPieces(
      layout,
      async (range, into) => {
        const [first, last] = [range.start, range.end].map((at) => wireOffsetBytes(layout, at));
        into.set(wireBytes.subarray(first, last));
      },
      (piece, bytes) => engine.loadParameters(bytes, piece),
    );
    assert.deepEqual(engine.evaluate(rows), expected);
    assert.throws(() => engine.loadParameters(wireBytes, 0), { code: "E_GRAPH_SHAPE" });
    assert.throws(() => engine.loadParameters(wireBytes, 2), RangeError);
  } finally {
    engine.close();
  }
});
