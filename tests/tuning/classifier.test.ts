/** The training engine on classifiers: loss and gradients of transformers, whole and row by row. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { isLockstepError } from "#lib/core/errors/index";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { readFixtureSpace } from "#tests/support/model-fixtures";
import { readSlot } from "#tests/support/tiny-llama";
import { classifierJob, labelsOf } from "#tests/support/batches";

interface Case {
  readonly input_ids: readonly (readonly number[])[];
  readonly attention_mask: readonly (readonly number[])[];
  readonly labels: readonly number[];
  readonly loss: number;
}

const directoryOf = (name: string): string => join(packageRoot, "tests/fixtures/models", name);
const readJson = (name: string, file: string): unknown =>
  JSON.parse(readFileSync(join(directoryOf(name), file), "utf8"));

/** Padding is a segment of its own. */
function batchOf(rows: readonly number[], reference: Case, types?: boolean): Batch {
  const width = reference.input_ids[0]?.length ?? 0;
  const tokens = Int32Array.from(rows.flatMap((row) => [...(reference.input_ids[row] ?? [])]));
  return {
    numRows: rows.length,
    fields: {
      tokens,
      segments: Int32Array.from(rows.flatMap((row) => [...(reference.attention_mask[row] ?? [])])),
      positions: Int32Array.from(tokens, (_, i) => i % width),
      ...(types === undefined
        ? {}
        : { tokenTypes: tokens.map((_, i) => (types && i % width > 3 ? 1 : 0)) }),
      label: Int32Array.from(rows, (row) => reference.labels[row] as number),
    },
  };
}

async function jobOf(name: string, microBatchSize: number, more: Partial<WorkerJob> = {}) {
  const reference = readJson(name, "case.json") as Case;
  const { wireBytes, ...space } = await readFixtureSpace(name);
  const job: WorkerJob = {
    jobId: "test",
    ...space,
    precision: "fp32",
    sequenceLength: reference.input_ids[0]?.length ?? 0,
    ...classifierJob(3),
    microBatchSize,
    evalBatchSize: microBatchSize,
    generationLength: 0,
    threadsPerWorker: 1,
    parameters: { kind: "full" },
    ...more,
  };
  return { job, reference, wireBytes };
}

for (const name of ["bert-seqcls", "roberta-seqcls", "distilbert-seqcls", "qwen2-seqcls"]) {
  test(`${name}: the gradient of rows, whole or one by one, is that of transformers`, async () => {
    const expected = await openSafetensors(join(directoryOf(name), "expected.safetensors"));
    try {
      for (const microBatchSize of [3, 1]) {
        const { job, reference, wireBytes } = await jobOf(name, microBatchSize);
        const engine = await createEngine(job);
        const rows = [0, 1, 2];
        const batches =
          microBatchSize === 3
            ? [batchOf(rows, reference)]
            : rows.map((row) => batchOf([row], reference));
        engine.loadParameters(wireBytes);
        let sum = 0;
        let count = 0;
        const gradients = new Uint8Array(wireBytes.byteLength);
        batches.forEach((batch, index) => {
          const { lossSum, weight } = engine.accumulate(
            batch,
            1 / rows.length,
            index === 0,
            index === batches.length - 1 ? gradients : undefined,
          );
          sum += lossSum;
          count += weight;
        });
        assert.equal(count, rows.length);
        assert.ok(Math.abs(sum / count / reference.loss - 1) < 1e-5);
        for (const { name: tensor } of job.layout.tensors) {
          const exact = await expected.readFloat32(`grad.${tensor}`);
          // A key's bias has no gradient, only rounding.
          if (Math.hypot(...exact) < 1e-6) continue;
          assertClose(readSlot(job.layout, tensor, gradients), exact, 1e-4, tensor);
        }
        engine.close();
      }
    } finally {
      await expected.close();
    }
  });
}

test("a row of padding counts nothing, and token types change the loss", async () => {
  const { job, reference, wireBytes } = await jobOf(
    "bert-seqcls",
    3,
    classifierJob(3, { hasTokenTypes: true }),
  );
  const engine = await createEngine(job);
  engine.loadParameters(wireBytes);
  const plain = engine.evaluate(batchOf([0, 1, 2], reference, false));
  assert.notEqual(engine.evaluate(batchOf([0, 1, 2], reference, true)).lossSum, plain.lossSum);
  const short = batchOf([0, 1, 2], reference, false);
  labelsOf(short)[2] = ignoredTarget;
  const counted = engine.evaluate(short);
  const single = [0, 1].map((row) => engine.evaluate(batchOf([row, row, row], reference, false)));
  assert.equal(counted.weight, 2);
  const sum = single.reduce((total, { lossSum }) => total + lossSum / 3, 0);
  assert.ok(Math.abs(counted.lossSum / sum - 1) < 1e-6);
  engine.close();
});

test("labels that are no classes are refused", async () => {
  for (const name of ["mistral-seqcls-regression", "roberta-multi"]) {
    const { job } = await jobOf(name, 1);
    await assert.rejects(
      async () => createEngine(job),
      (error) => isLockstepError(error) && error.code === "E_MODEL_UNSUPPORTED",
    );
  }
});
