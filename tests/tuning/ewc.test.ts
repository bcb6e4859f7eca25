import assert from "node:assert/strict";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { type Batch, countTargets, ignoredTarget } from "#lib/core/batch";
import type { TrainingEngine, WorkerJob } from "#lib/core/job";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { finishFisher } from "#lib/optim/index";
import createEngine from "#lib/tuning/engine";
import { assertClose, relativeError } from "#tests/support/compare";
import { batchOf, loadFrozen, readLoraFixture } from "#tests/support/lora-fixtures";
import { methodFixture } from "#tests/support/method-steps";
import { readFixtureSpace } from "#tests/support/model-fixtures";
import { OptimizerRun, optimizerOf } from "#tests/support/optimizer-runs";
import { causalJob } from "#tests/support/batches";

// tests/reference/make_ewc_fixture.py made the numbers.

const name = "llama-yarn";
const lambda = 5;
const movedBy = 7;
const vocabSize = 48;

/** The rows of a batch, one a batch. */
function rowsOf({ numRows, fields }: Batch): Batch[] {
  return Array.from({ length: numRows }, (_, row) => ({
    numRows: 1,
    fields: Object.fromEntries(
      Object.entries(fields).map(([key, values]) => {
        const size = values.length / numRows;
        return [key, values.slice(row * size, (row + 1) * size)];
      }),
    ),
  }));
}

/** The same rows with other tokens. */
function moved({ numRows, fields }: Batch): Batch {
  const move = (values: ArrayLike<number> = []): Int32Array =>
    Int32Array.from(values, (id) => (id < 0 ? ignoredTarget : (id + movedBy) % vocabSize));
  return {
    numRows,
    fields: { ...fields, tokens: move(fields["tokens"]), targets: move(fields["targets"]) },
  };
}

/** Summed squares of the rows' gradients, in float32 wire form. */
function squaresOf(engine: TrainingEngine, rows: readonly Batch[], wireBytes: number) {
  const wire = new Uint8Array(wireBytes);
  const sums = rows.map((row, index) =>
    engine.accumulateSquares?.(row, index === 0, index === rows.length - 1 ? wire : undefined),
  );
  return { squares: new Float32Array(wire.buffer), sums };
}

test("F, the penalty and five steps of SGD and AdamW are torch's", async () => {
  const { modelConfig, layout, wireBytes } = await readFixtureSpace(name);
  const first = new Float32Array(wireBytes.slice().buffer);
  const batch = batchOf(name);
  const job: WorkerJob = {
    ...{ jobId: "test", modelConfig, layout, precision: "fp32", parameters: { kind: "full" } },
    sequenceLength: (batch.fields["tokens"]?.length ?? 0) / batch.numRows,
    ...causalJob({ hasSegments: true }),
    ...{ microBatchSize: batch.numRows, evalBatchSize: batch.numRows, generationLength: 0 },
    ...{ threadsPerWorker: 1, squares: { task: 0 } },
  };
  const expected = await openSafetensors(methodFixture(`ewc-${name}.safetensors`));
  const engine = await createEngine(job);
  try {
    const rows = rowsOf(batch);
    for (const optim of ["sgd", "adamw"] as const) {
      const optimizer = {
        ...optimizerOf({ optim: optim === "sgd" ? "sgd" : "adamw_torch", adam_epsilon: 1e-6 }),
        ewcLambda: lambda,
      };
      const rate = optim === "sgd" ? 0.05 : 1e-2;
      const run = await OptimizerRun.start(layout, optimizer, {
        ...{ learningRateAt: () => rate, maxGradNorm: 1 },
      });
      run.setMasters(first);
      const [shard] = run.shards;
      assert.ok(shard !== undefined);
      engine.loadParameters(shard.publish());
      const { squares } = squaresOf(engine, rows, wireSizeBytes(layout));
      for (const { name: tensor, offset, size } of layout.tensors) {
        const mean = squares.subarray(offset, offset + size).map((value) => value / rows.length);
        assertClose(mean, await expected.readFloat32(`fisher.${tensor}`), 1e-5, tensor);
      }
      shard.addGroup(new Uint8Array(squares.buffer), true);
      shard.keepSquares(true);
      const shards = {
        fisherSums: async () => shard.fisherSums(),
        finishFisher: async (scale: number) => shard.finishFisher(scale),
      };
      await finishFisher(shards, layout, { numRows: rows.length, normalises: true });
      const task = moved(batch);
      const numTargets = countTargets(task.fields["targets"]);
      const [losses, penalties, norms] = await Promise.all(
        ["losses", "penalties", "norms"].map((of) => expected.readFloat32(`${optim}.${of}`)),
      );
      for (const [step, loss] of (losses ?? []).entries()) {
        engine.loadParameters(shard.publish());
        const wire = new Uint8Array(wireSizeBytes(layout));
        const { lossSum } = engine.accumulate(task, 1 / numTargets, true, wire);
        assert.ok(Math.abs(lossSum / numTargets / loss - 1) < 1e-5, `${optim} ${step}`);
        const made = await run.step(step, new Float32Array(wire.buffer));
        const penalty = penalties?.[step] ?? Number.NaN;
        const norm = norms?.[step] ?? Number.NaN;
        assert.ok(
          Math.abs((made.ewcPenalty ?? 0) - penalty) <= 2e-5 * penalty,
          `${made.ewcPenalty}`,
        );
        assert.ok(
          Math.abs(made.gradientNorm / norm - 1) < 2e-5,
          `${made.gradientNorm}, not ${norm}`,
        );
      }
      const goal = first.slice();
      for (const { name: tensor, offset } of layout.tensors) {
        goal.set(await expected.readFloat32(`${optim}.${tensor}`), offset);
      }
      const change = (values: Float32Array) => values.map((value, i) => value - (first[i] ?? 0));
      const error = relativeError(change(shard.masters.slice(0, first.length)), change(goal));
      assert.ok(
        error < (optim === "sgd" ? 1e-5 : 1e-3),
        `${optim}: the change differs by ${error}`,
      );
      await run.close();
    }
  } finally {
    engine.close();
    await expected.close();
  }
});

for (const precision of ["fp32", "bf16"] as const) {
  test(`squares of a row of LoRA in ${precision} are those of its gradient, and 0 of A where B is 0`, async () => {
    const fixture = await readLoraFixture("llama-gqa-untied", precision);
    const rows = rowsOf(fixture.batch);
    const job: WorkerJob = {
      ...fixture.job,
      ...{ microBatchSize: 1, evalBatchSize: 1, squares: { task: 0 } },
    };
    const { layout, frozen } = fixture.job;
    const wireBytes = wireSizeBytes(layout);
    const engine = await createEngine(job);
    try {
      await loadFrozen(engine, frozen, fixture.frozen);
      const withoutB = fixture.trained.slice();
      for (const { name: tensor, offset, size } of layout.tensors) {
        if (!tensor.includes("lora_B")) continue;
        // Adapters travel in float32.
        withoutB.fill(0, offset * 4, (offset + size) * 4);
      }
      for (const [trained, isZero] of [
        [fixture.trained, false],
        [withoutB, true],
      ] as const) {
        engine.loadParameters(trained);
        for (const row of rows) {
          const { squares, sums } = squaresOf(engine, [row], wireBytes);
          const wire = new Uint8Array(wireBytes);
          const sum = engine.accumulate(row, 1, true, wire);
          assert.deepEqual(sums, [sum]);
          const gradient = new Float32Array(wire.buffer);
          assert.deepEqual(
            squares,
            gradient.map((value) => value ** 2),
          );
          for (const { name: tensor, offset, size } of layout.tensors) {
            const isMoved = squares.subarray(offset, offset + size).some((value) => value > 0);
            assert.equal(isMoved, !(isZero && tensor.includes("lora_A")), tensor);
          }
        }
        // Two rows: the sum of their squares, not the square of their sum.
        const [one, two] = rows.slice(0, 2).map((row) => squaresOf(engine, [row], wireBytes));
        const both = squaresOf(engine, rows.slice(0, 2), wireBytes);
        assert.deepEqual(
          both.squares,
          one?.squares.map((value, i) => value + (two?.squares[i] ?? 0)),
        );
      }
    } finally {
      engine.close();
    }
  });
}
