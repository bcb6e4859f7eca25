import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import type { Batch } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { buildParameterLayout, wireSizeBytes } from "#lib/core/parameter-layout";
import { packageRoot } from "#lib/core/paths";
import { objectiveOf } from "#lib/objectives/index";
import { LossTerms } from "#lib/optim/index";
import createEngine from "#lib/tuning/engine";
import { classifierJob } from "#tests/support/batches";
import { assertClose } from "#tests/support/compare";
import { startingFixture } from "#tests/support/method-steps";

// tests/reference/make_labelled_tasks_fixture.py made the step.

const directory = join(packageRoot, "tests/fixtures/tasks");
const fixture = JSON.parse(readFileSync(join(directory, "labelled.json"), "utf8")) as {
  readonly model: string;
  readonly length: number;
  readonly numLabels: number;
  readonly batches: readonly { task: "topic" | "mark"; tokens: number[][]; labels: number[] }[];
  readonly loss: number;
  readonly means: Record<"topic" | "mark", number>;
};
const names = ["topic", "mark"] as const;
const prefix = "tasks/mark/";

const batches = fixture.batches.map(({ task, tokens, labels }, index): Batch => {
  // All batches are of two rows; a shorter one is filled up with padding.
  const padded = [...tokens, ...Array.from({ length: 2 - tokens.length }, () => [])];
  const values = (of: (row: readonly number[], place: number) => number): Int32Array =>
    Int32Array.from(
      padded.flatMap((row) => Array.from({ length: fixture.length }, (_, i) => of(row, i))),
    );
  const lacking = Array.from({ length: 2 - tokens.length }, () => -100);
  const numbers = [...labels, ...lacking];
  return {
    numRows: 2,
    task: names.indexOf(task),
    fields: {
      tokens: values((row, i) => row[i] ?? 0),
      segments: values((row) => (row.length === 0 ? 0 : 1)),
      positions: values((row, i) => (row.length === 0 ? 0 : i)),
      ...(task === "topic"
        ? { label: Int32Array.from(numbers) }
        : {
            numbers: Float32Array.from(numbers),
            counted: Int32Array.from([...labels.map(() => 1), ...lacking]),
          }),
    },
    coordinates: { step: 0, group: 0, index },
  };
});

test("a classifier and a regression over one BERT: loss and gradients of both heads and the backbone are torch's", async (t) => {
  const model = await startingFixture(fixture.model);
  const expected = await openSafetensors(join(directory, "labelled.safetensors"));
  t.after(() => Promise.all([model.close(), expected.close()]));
  const head = [...expected.tensors].filter(([name]) => name.startsWith("head."));
  const layout = buildParameterLayout(
    [
      ...model.weights,
      ...head.map(([name, { shape }]) => ({ name: prefix + name.slice("head.".length), shape })),
    ],
    "float32",
  );
  const topic = classifierJob(fixture.numLabels);
  const regression = { kind: "regression", numLabels: 1 };
  const fields = topic.batchFields.filter(({ name }) => name !== "label");
  const length = { sequenceLength: fixture.length };
  const job: WorkerJob = {
    ...{ jobId: "test", modelConfig: model.modelConfig, layout, ...length, ...topic },
    tasks: [
      { name: "topic", ...topic, ...length },
      {
        ...{ name: "mark", objective: regression, ...length },
        batchFields: [...fields, ...objectiveOf("regression").targets(regression)],
        head: {
          prefix,
          configChanges: {
            ...{ problem_type: "regression", id2label: { 0: "mark" }, label2id: { mark: 0 } },
          },
        },
      },
    ],
    ...{ parameters: { kind: "full" }, precision: "fp32", microBatchSize: 2, evalBatchSize: 2 },
    ...{ generationLength: 0, threadsPerWorker: 1 },
  };
  const terms = new LossTerms({
    terms: [
      { name: "topic", weight: 1, uncertainty: 1 },
      { name: "mark", weight: 1, uncertainty: 0.5 },
    ],
    termOfTask: [0, 1],
  });
  const engine = await createEngine(job);
  t.after(() => engine.close());
  const wire = new Uint8Array(wireSizeBytes(layout));
  const values = new Float32Array(wire.buffer);
  for (const { name, offset } of layout.tensors) {
    const own = name.startsWith(prefix);
    const read = own
      ? await expected.readFloat32(`head.${name.slice(prefix.length)}`)
      : await model.read(name);
    values.set(read, offset);
  }
  engine.loadParameters(wire);
  // Three rows of the one, four of the other: one normaliser for both would weigh them otherwise.
  const gradScales = terms.gradScales([3, 4], 1);
  const sums = batches.map((batch, index) => ({
    ...engine.accumulate(
      batch,
      gradScales[batch.task ?? 0] as number,
      index === 0,
      index === batches.length - 1 ? wire : undefined,
    ),
    task: batch.task,
  }));
  const ofTerms = terms.sums([sums]);
  assert.deepEqual(
    ofTerms.map(({ weight }) => weight),
    [3, 4],
  );
  const loss = terms.loss(ofTerms);
  assert.ok(Math.abs(loss / fixture.loss - 1) < 1e-6, `loss ${loss}, not ${fixture.loss}`);
  let compared = 0;
  for (const { name, offset, size } of layout.tensors) {
    const key = `gradient.${name}`;
    if (!expected.tensors.has(key)) continue;
    compared += 1;
    const own = values.subarray(offset, offset + size);
    const goal = await expected.readFloat32(key);
    // Those of keys' biases are 0 but for rounding.
    if (name.endsWith("key.bias")) assert.ok(own.every((value) => Math.abs(value) < 1e-6));
    else assertClose(own, goal, 1e-5, name);
  }
  assert.ok(compared > 20);
});
