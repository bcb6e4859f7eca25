/** Steps that another library made with a way to choose parameters: tests/fixtures/methods. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { ModelWeights, openSafetensors } from "#lib/checkpoint/index";
import { type Batch, countTargets } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { packageRoot } from "#lib/core/paths";
import { readWireSpace } from "#lib/core/wire-space";
import { Generator, generationDefaults } from "#lib/evaluation/generate/index";
import { computeCase, keptRows } from "#lib/evaluation/verify/index";
import { adapterFacts } from "#lib/models/facts";
import type { ChosenParameters, StartingModel } from "#lib/parameters/index";
import type { ChoiceOptions } from "#lib/parameters/kind";
import createEngine from "#lib/tuning/engine";
import { findAdapter } from "#run/model-place";
import { openModel } from "#run/open-model";
import { causalJob, classifierJob } from "./batches.js";
import { assertClose, relativeError } from "./compare.js";
import { batchOf, loadFrozen } from "./lora-fixtures.js";
import { modelFixtureDirectory, readFixtureCase } from "./model-fixtures.js";
import { OptimizerRun, optimizerOf } from "./optimizer-runs.js";

export const methodFixture = (name: string): string =>
  join(packageRoot, "tests/fixtures/methods", name);

/** Of a choice in float32. */
export const choiceOptions: ChoiceOptions = {
  ...{ wireDtype: "float32", frozenDtype: "float32", rules: {}, seed: 1 },
  isGiven: () => false,
};

/** A model of tests/fixtures/models as a run starts from it. */
export async function startingFixture(
  name: string,
): Promise<
  StartingModel & { readonly modelConfig: Record<string, unknown>; close(): Promise<void> }
> {
  const directory = modelFixtureDirectory(name);
  const text = readFileSync(join(directory, "config.json"), "utf8");
  const modelConfig = JSON.parse(text) as Record<string, unknown>;
  const weights = await ModelWeights.open(directory);
  return {
    ...{ name, revision: null, directory, modelConfig, newWeights: [], configChanges: {} },
    facts: adapterFacts(modelConfig),
    weights: weights.names().map((each) => ({ name: each, shape: weights.info(each).shape })),
    isClassifier: modelConfig["num_labels"] !== undefined || name.includes("seqcls"),
    tiedEmbedding: undefined,
    digest: async () => "",
    read: (each, into, span) => weights.readFloat32(each, into, span),
    close: () => weights.close(),
  };
}

/** The job of a fixture's own case, in float32 unless `changes` say otherwise. */
export function methodJob(
  modelConfig: Record<string, unknown>,
  batch: Batch,
  { layout, frozen, job: parameters }: ChosenParameters,
  changes: Partial<WorkerJob> = {},
): WorkerJob {
  const tokens = batch.fields["tokens"] as Int32Array;
  return {
    jobId: "test",
    modelConfig,
    layout,
    ...(frozen === undefined ? {} : { frozen }),
    parameters,
    precision: "fp32",
    sequenceLength: tokens.length / batch.numRows,
    ...(batch.fields["label"] === undefined
      ? causalJob({ hasSegments: true })
      : classifierJob(Object.keys(modelConfig["id2label"] ?? { 0: "", 1: "" }).length)),
    microBatchSize: batch.numRows,
    evalBatchSize: batch.numRows,
    generationLength: batch.fields["label"] === undefined ? 12 : 0,
    threadsPerWorker: 1,
    ...changes,
  };
}

/** Of the whole change of what is trained, Euclidean. */
const tolerances = { sgd: 1e-4, adamw: 1e-3 } as const;
const optimizers = {
  sgd: { optim: "sgd", rate: 0.05 },
  adamw: { optim: "adamw_torch", rate: 1e-3 },
} as const;

/**
 * Five steps on the case of a model, against those that were recorded: losses and what is learnt.
 *
 * @param start first values of a trained tensor; the run's own where nothing is given
 * @param recordedName the name under which the file has a trained tensor
 */
export async function assertMethodSteps(
  file: string,
  model: { readonly name: string; readonly modelConfig: Record<string, unknown> },
  chosen: ChosenParameters,
  {
    start,
    recordedName = (name) => name,
  }: {
    readonly start?: (name: string) => Promise<Float32Array>;
    readonly recordedName?: (name: string) => string;
  } = {},
): Promise<void> {
  const { layout, frozen, loadFrozen: loadSpace } = chosen;
  const batch = batchOf(model.name);
  const expected = await openSafetensors(methodFixture(file));
  const numTargets = countTargets(batch.fields["targets"] ?? batch.fields["label"]);
  const first = new Float32Array(layout.numElements);
  if (start === undefined) await chosen.loadMasters({ start: 0, end: first.length }, first);
  else for (const { name, offset } of layout.tensors) first.set(await start(name), offset);
  const engine = await createEngine(methodJob(model.modelConfig, batch, chosen));
  try {
    if (frozen !== undefined && loadSpace !== undefined) {
      await loadFrozen(engine, frozen, await readWireSpace(frozen, loadSpace));
    }
    for (const kind of ["sgd", "adamw"] as const) {
      const { optim, rate } = optimizers[kind];
      const optimizer = optimizerOf({ optim, adam_epsilon: 1e-6 });
      const run = await OptimizerRun.start(layout, optimizer, { learningRateAt: () => rate });
      run.setMasters(first);
      const [shard] = run.shards;
      assert.ok(shard !== undefined);
      const losses = await expected.readFloat32(`${kind}.losses`);
      for (const [step, loss] of losses.entries()) {
        engine.loadParameters(shard.publish());
        const wire = new Uint8Array(wireSizeBytes(layout));
        const { lossSum } = engine.accumulate(batch, 1 / numTargets, true, wire);
        const own = lossSum / numTargets;
        assert.ok(Math.abs(own / loss - 1) < 1e-5, `${kind} ${step}: loss ${own}, not ${loss}`);
        await run.step(step, new Float32Array(wire.buffer));
      }
      const masters = shard.masters.slice(0, layout.numElements);
      const goal = first.slice();
      for (const { name, offset, size } of layout.tensors) {
        const values = await expected.readFloat32(`${kind}.${recordedName(name)}`);
        goal.set(values, offset);
        assertClose(masters.subarray(offset, offset + size), values, tolerances[kind], name);
      }
      const change = (values: Float32Array) =>
        values.map((value, i) => value - (first[i] as number));
      const error = relativeError(change(masters), change(goal));
      assert.ok(error < tolerances[kind], `${kind}: what is learnt differs by ${error}`);
      await run.close();
    }
    const recorded = [...expected.tensors.keys()].filter((key) => key.startsWith("sgd."));
    assert.equal(recorded.length - 1, layout.tensors.length);
  } finally {
    engine.close();
    await expected.close();
  }
}

/**
 * The steps of a method that adds tensors to a model, from the directory that another library saved before them.
 *
 * @param fixture the directory's name; that of the steps is the same with `.safetensors`
 */
export async function assertStepsFromDirectory(
  t: TestContext,
  fixture: string,
  model: Awaited<ReturnType<typeof startingFixture>>,
  chosen: ChosenParameters,
): Promise<void> {
  const saved = await openAddedTensors(methodFixture(fixture));
  assert.ok(saved !== undefined);
  t.after(() => saved.close());
  const start = (tensor: string): Promise<Float32Array> =>
    saved.savedWeights.includes(tensor) ? saved.readSaved(tensor) : saved.readAdded(tensor);
  await assertMethodSteps(`${fixture}.safetensors`, model, chosen, { start });
}

/**
 * Opens a directory of another library over its base, and compares loss and logits of the base's case with those that
 * were recorded, and a continued text with its own greedy choice over cached keys.
 *
 * @param numBefore tokens that the recorded logits have before those of each row
 */
export async function assertLogitsOfDirectory(
  t: TestContext,
  fixture: string,
  name: string,
  {
    numBefore = 0,
    ...generation
  }: { readonly numBefore?: number; readonly chunkLength?: number } = {},
): Promise<void> {
  const base = modelFixtureDirectory(name);
  const opened = await openModel(await findAdapter(methodFixture(fixture), { base }));
  t.after(() => opened.close());
  const { model, readWeight } = opened;
  const reference = readFixtureCase(name);
  const result = await computeCase(model, readWeight, reference);
  const expected = await openSafetensors(methodFixture(`${fixture}.safetensors`));
  t.after(() => expected.close());
  const [loss = 0] = await expected.readFloat32("sgd.losses");
  assert.ok(Math.abs(result.loss / loss - 1) < 1e-5, `loss ${result.loss}, not ${loss}`);
  const logits = await expected.readFloat32("logits");
  if (model.task !== "causal-lm") {
    assertClose(result.logits, logits, 1e-5, "logits");
    return;
  }
  const { numRows, rowLength, attentionMask, greedy } = reference;
  const width = logits.length / numRows / (rowLength + numBefore);
  const ofTokens = Array.from({ length: numRows }, (_, row) => {
    const first = row * (rowLength + numBefore) + numBefore;
    return [...logits.subarray(first * width, (first + rowLength) * width)];
  }).flat();
  const kept = (values: Float32Array) => keptRows(values, attentionMask);
  assertClose(kept(result.logits), kept(Float32Array.from(ofTokens)), 1e-5, "logits");
  assert.ok(greedy !== undefined);
  const maxLength = greedy.prompt.length + greedy.continuation.length;
  const generator = await Generator.create({ model, readWeight, maxLength, ...generation });
  t.after(() => generator.close());
  const [continued] = await generator.generate([Int32Array.from(greedy.prompt)], {
    ...{ ...generationDefaults, endTokenIds: [], doSample: false },
    maxNewTokens: greedy.continuation.length,
  });
  assert.deepEqual([...(continued?.tokens ?? [])], [...(result.continuation ?? [])]);
}
