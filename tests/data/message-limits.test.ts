import assert from "node:assert/strict";
import { test } from "node:test";
import { type BatchField, fieldArray, inputFields, nextTokenField } from "#lib/core/batch";
import { isLockstepError } from "#lib/core/errors/index";
import { controlMethods } from "#lib/wire/control-codec";
import type { Task } from "#lib/wire/control-messages";
import { maxControlMessageBytes } from "#lib/wire/limits";
import { checkMessages } from "#run/message-limits";
import { testJob } from "#tests/support/cluster";

interface Shape {
  readonly trainRows: number;
  readonly evalRows?: number;
  readonly numMicroBatches: number;
  readonly groups?: number;
  readonly sequenceLength?: number;
  readonly sampleTokens?: number;
  readonly numTensors?: number;
}

const batchFields: readonly BatchField[] = [
  ...inputFields({ hasSegments: true }),
  nextTokenField,
  { name: "weights", dtype: "float32", perRow: 1 },
];

/** What a run of this shape is refused with; "" when it is not. */
function refusal(shape: Shape): string {
  const { trainRows, evalRows = 1, numMicroBatches, groups = 1, sequenceLength = 1_024 } = shape;
  const tensors = Array.from({ length: shape.numTensors ?? 1 }, () => ({
    ...{ name: "model.layers.0.self_attn.q_proj.weight", shape: [576, 576] },
    ...{ offset: 0, size: 331_776 },
  }));
  const run = {
    config: {
      gradient_groups: groups,
      per_device_train_batch_size: trainRows,
      per_device_eval_batch_size: evalRows,
    },
    job: { ...testJob, batchFields, layout: { ...testJob.layout, tensors } },
    plan: { rowsPerStep: trainRows * numMicroBatches, sequenceLength },
    sample:
      shape.sampleTokens === undefined
        ? undefined
        : { prompt: { length: shape.sampleTokens }, maxNewTokens: 1 },
  };
  try {
    checkMessages(run as unknown as Parameters<typeof checkMessages>[0]);
    return "";
  } catch (error) {
    if (isLockstepError(error) && error.code === "E_TASK_TOO_LARGE") return error.message;
    throw error;
  }
}

/** Bytes of the lease of a group of this shape. */
function leaseBytes({ trainRows, numMicroBatches, sequenceLength = 1_024 }: Shape): number {
  const fields = batchFields.map((field) => {
    const { perRow } = field;
    const size = trainRows * (perRow === "token" ? sequenceLength : perRow);
    // Of the largest values that there are.
    return [field.name, fieldArray(field, size).fill(-1)] as const;
  });
  const batch = { numRows: trainRows, fields: Object.fromEntries(fields) };
  const large = 2 ** 32 - 1;
  const task: Task = {
    ...{ kind: "train", lease: large, step: large, group: large, version: large },
    gradScales: Array.from({ length: numMicroBatches }, () => 1e-9),
    batches: Array.from({ length: numMicroBatches }, (_, index) => ({
      ...batch,
      task: large,
      coordinates: { step: large, group: large, index },
    })),
  };
  return controlMethods.nextTask.responseSerialize(task).length;
}

test("a group is refused where its lease is larger than a message, and hardly before", () => {
  // 16,388 bytes a row: 2047 rows fit, 2048 do not.
  for (const [trainRows, numMicroBatches, fits] of [
    [1, 1, true],
    [8, 255, true],
    [8, 256, false],
    [2_047, 1, true],
    [2_048, 1, false],
    [1, 1_980, true],
    [1, 2_048, false],
  ] as const) {
    const shape = { trainRows, numMicroBatches };
    const bytes = leaseBytes(shape);
    assert.equal(bytes <= maxControlMessageBytes, fits, `${trainRows} x ${numMicroBatches}`);
    assert.equal(refusal(shape) === "", fits, `${trainRows} x ${numMicroBatches}: ${bytes}`);
  }
});

test("the refusal names the numbers and what changes them", () => {
  assert.match(
    refusal({ trainRows: 16, numMicroBatches: 512, groups: 2 }),
    /A gradient group takes \d+ bytes .* holds at most 33554432: 256 micro-batches of 16 rows, a row of 1024 tokens in 5 fields.*gradient_groups.*per_device_train_batch_size/,
  );
  assert.equal(refusal({ trainRows: 16, numMicroBatches: 512, groups: 8 }), "");
});

test("so are more micro-batches than a lease lists, an evaluation's batch, a sample and a job", () => {
  const small = { trainRows: 1, numMicroBatches: 1 };
  assert.match(
    refusal({ trainRows: 1, numMicroBatches: 70_000, sequenceLength: 2 }),
    /70000 micro-batches in one message .* at most 65536/,
  );
  assert.match(
    refusal({ ...small, evalRows: 4_096 }),
    /A batch of the evaluation takes .*4096 rows.*per_device_eval_batch_size/,
  );
  assert.match(
    refusal({ ...small, sampleTokens: 1_000_000 }),
    /sample takes 1000001 tokens .*sample_prompt/,
  );
  assert.match(
    refusal({ ...small, numTensors: 200_000 }),
    /description of the job takes \d+ characters .* lists 200000 tensors/,
  );
  assert.equal(refusal({ ...small, numTensors: 20_000, sampleTokens: 900_000 }), "");
});
