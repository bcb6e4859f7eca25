import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { type Batch, countTargets, inputFields, nextTokenField } from "#lib/core/batch";
import type { TrainingEngine, WorkerJob } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { LossTerms, type LossTermsSettings } from "#lib/optim/index";
import createEngine from "#lib/tuning/engine";
import type { PreparedRun } from "#run/prepared-run";
import { trainLocal } from "#run/train-local";
import { shifted } from "#tests/support/batches";
import { assertClose } from "#tests/support/compare";
import { readFixtureSpace } from "#tests/support/model-fixtures";
import { optimizerOf } from "#tests/support/optimizer-runs";

// tests/reference/make_tasks_fixture.py made the steps: two tasks, each with a mean of its own, in one of which the
// second step has no row.

type TaskName = "long" | "short";
interface Reference {
  readonly steps: readonly {
    readonly loss: number;
    readonly means: Partial<Record<TaskName, number>>;
    readonly s: Record<TaskName, number>;
  }[];
  readonly final: Record<TaskName, number>;
}
const directory = join(packageRoot, "tests/fixtures/tasks");
const fixture = JSON.parse(readFileSync(join(directory, "case.json"), "utf8")) as {
  readonly model: string;
  readonly lengths: Record<TaskName, number>;
  readonly fixed: Record<TaskName, number>;
  readonly rate: number;
  readonly steps: readonly (readonly (readonly {
    readonly task: TaskName;
    readonly tokens: number[][];
    readonly labels: number[][];
  }[])[])[];
  readonly fixedRun: Reference;
  readonly learntRun: Reference;
};
const names = ["long", "short"] as const;

const batchesOf = (step: number, group: number): Batch[] =>
  (fixture.steps[step]?.[group] ?? []).map(({ task, tokens, labels }, index) => ({
    numRows: tokens.length,
    task: names.indexOf(task),
    fields: {
      tokens: Int32Array.from(tokens.flat()),
      [nextTokenField.name]: shifted(labels.flat(), fixture.lengths[task]),
    },
    coordinates: { step, group, index },
  }));

const lossWeights = (step: number): number[] =>
  names.map((_, task) =>
    [0, 1]
      .flatMap((group) => batchesOf(step, group))
      .filter((batch) => batch.task === task)
      .reduce((sum, batch) => sum + countTargets(batch.fields[nextTokenField.name]), 0),
  );

async function taskRun(lossTerms: LossTermsSettings) {
  const { wireBytes, ...space } = await readFixtureSpace(fixture.model, "float32");
  const objective = { kind: "causal_lm" };
  const batchFields = [...inputFields(), nextTokenField];
  const job: WorkerJob = {
    jobId: "test",
    ...space,
    ...{ objective, batchFields, parameters: { kind: "full" }, precision: "fp32" },
    sequenceLength: 8,
    tasks: names.map((name) => ({
      ...{ name, objective, batchFields, sequenceLength: fixture.lengths[name] },
    })),
    ...{ microBatchSize: 2, evalBatchSize: 2, generationLength: 0, threadsPerWorker: 1 },
  };
  const masters = new Float32Array(wireBytes.buffer, wireBytes.byteOffset, wireBytes.length / 4);
  const run = {
    config: { gradient_groups: 2 },
    job,
    plan: {
      totalSteps: fixture.steps.length,
      microBatches: batchesOf,
      lossWeights,
    },
    updates: {
      optimizer: optimizerOf({ optim: "adamw_torch", adam_epsilon: 1e-4 }),
      learningRateAt: () => fixture.rate,
      maxGradNorm: 0,
      lossTerms,
    },
    parameters: {
      loadMasters: async (range: { start: number; end: number }, into: Float32Array) =>
        into.set(masters.subarray(range.start, range.end)),
    },
  } as unknown as PreparedRun;
  return { run, job };
}

/** Adds up what the engine gives for the groups of the first step. */
function withFirstGradient(engine: TrainingEngine, size: number) {
  const sum = new Float32Array(size);
  let groups = 0;
  const accumulate = engine.accumulate.bind(engine);
  engine.accumulate = (batch, gradScale, first, wire) => {
    const losses = accumulate(batch, gradScale, first, wire);
    if (wire !== undefined && groups++ < 2) {
      const values = new Float32Array(wire.buffer, wire.byteOffset, size);
      for (const [i, value] of values.entries()) sum[i] = (sum[i] as number) + value;
    }
    return losses;
  };
  return sum;
}

for (const kind of ["fixed", "learnt"] as const) {
  test(`losses, gradients and steps of two tasks of ${kind} weights are torch's`, async () => {
    const expected = fixture[`${kind}Run`];
    const terms: LossTermsSettings = {
      terms: names.map((name) => ({
        name,
        weight: fixture.fixed[name],
        ...(kind === "learnt" ? { uncertainty: 1 } : {}),
      })),
      termOfTask: [0, 1],
    };
    const { run, job } = await taskRun(terms);
    const tensors = await openSafetensors(join(directory, `${kind}.safetensors`));
    const engine = await createEngine(job);
    try {
      const gradient = withFirstGradient(engine, wireSizeBytes(job.layout) / 4);
      const outcome = await trainLocal(run, engine);
      const [shard] = outcome.shards;
      assert.ok(shard !== undefined);
      const compared = job.layout.tensors.filter(({ name }) =>
        tensors.tensors.has(`after.${name}`),
      );
      assert.ok(compared.length > 10);
      for (const { name, offset, size } of compared) {
        const slice = (values: Float32Array) => values.slice(offset, offset + size);
        // Those of keys' biases are 0 but for rounding.
        const goal = await tensors.readFloat32(`gradient.${name}`);
        assertClose(slice(gradient), goal, 1e-5, `gradient of ${name}`);
        assertClose(slice(shard.masters), await tensors.readFloat32(`after.${name}`), 2e-5, name);
      }
      for (const [index, step] of outcome.steps.entries()) {
        const { loss, means, s } = expected.steps[index] as (typeof expected.steps)[number];
        const isLike = (value: number, goal: number, what: string): void =>
          assert.ok(Math.abs(value / goal - 1) < 1e-5, `${what} is ${value}, not ${goal}`);
        isLike(step.loss, loss, `loss of step ${index}`);
        for (const [task, name] of names.entries()) {
          const figures = step.tasks?.[task];
          assert.equal(figures?.loss === undefined, means[name] === undefined);
          if (means[name] !== undefined) isLike(figures?.loss ?? NaN, means[name], name);
          const weight = kind === "fixed" ? fixture.fixed[name] : Math.exp(-s[name]);
          isLike(figures?.weight ?? NaN, weight, `weight of ${name}`);
        }
      }
    } finally {
      engine.close();
      await tensors.close();
    }
  });
}

test("weights of tasks that are called as what objects have begin at 0", () => {
  const terms = ["constructor", "toString"].map((name) => ({ name, weight: 1, uncertainty: 1 }));
  const learnt = new LossTerms({ terms, termOfTask: [0, 1] });
  assert.deepEqual(learnt.weights, [1, 1]);
});

test("weights that are learnt go on from their state to the same bits, and one without rows stays", () => {
  const settings: LossTermsSettings = {
    terms: names.map((name) => ({ name, weight: 1, uncertainty: 1 })),
    termOfTask: [0, 1],
  };
  const sumsOf = (means: Partial<Record<TaskName, number>>) =>
    names.map((name) =>
      means[name] === undefined ? { lossSum: 0, weight: 0 } : { lossSum: means[name], weight: 1 },
    );
  const { steps, final } = fixture.learntRun;
  let terms = new LossTerms(settings);
  let resumed = terms;
  for (const [index, { means, s }] of steps.entries()) {
    for (const name of names) {
      const own = terms.state?.[name]?.s ?? NaN;
      assert.ok(Math.abs(own - s[name]) < 1e-9, `s of ${name} in step ${index} is ${own}`);
    }
    terms = terms.learned(sumsOf(means), fixture.rate);
    const saved: unknown = JSON.parse(JSON.stringify(resumed.state));
    resumed = new LossTerms(settings, saved as never).learned(sumsOf(means), fixture.rate);
    assert.deepEqual(resumed.state, terms.state);
  }
  for (const name of names) {
    assert.ok(Math.abs((terms.state?.[name]?.s ?? NaN) - final[name]) < 1e-9);
  }
  assert.equal(terms.state?.["short"]?.updates, 3);
});
