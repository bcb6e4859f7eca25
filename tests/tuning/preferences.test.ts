/** Pairs of answers in the training engine: losses, figures and gradients of TRL's own trainers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { inputFields } from "#lib/core/batch";
import type { WorkerJob } from "#lib/core/job";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { readWireSpace } from "#lib/core/wire-space";
import { objectiveOf } from "#lib/objectives/index";
import { full } from "#lib/parameters/full";
import type { ChosenParameters } from "#lib/parameters/kind";
import { withReference } from "#lib/parameters/reference";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { loadFrozen } from "#tests/support/lora-fixtures";
import { choiceOptions, startingFixture } from "#tests/support/method-steps";
import {
  pairBatch,
  pairCases,
  pairGradients,
  pairObjectiveJob,
  perturbed,
} from "#tests/support/pair-cases";
import { readSlot, writeSlot } from "#tests/support/tiny-llama";

/** What TRL logs and Lockstep does not, as docs/preferences.md says. */
const notLogged: Readonly<Record<string, readonly string[]>> = {
  ...{ dpo: ["num_tokens"], reward: ["num_tokens"] },
  orpo: ["logits/chosen", "logits/rejected"],
};

for (const [name, pairs] of Object.entries(pairCases)) {
  test(`${name}: loss, figures and gradients are those of TRL`, async (t) => {
    const objective = pairObjectiveJob(pairs);
    const { targets, hasReference = false, scorer } = objectiveOf(objective.kind);
    const { rowLength, ...batch } = pairBatch(pairs, targets(objective));
    const model = await startingFixture(pairs.model);
    t.after(() => model.close());
    const chosen: ChosenParameters = full.choose({}, model, choiceOptions);
    const parameters = hasReference ? withReference(chosen, model, "float32") : chosen;
    const { layout, frozen, loadFrozen: loadSpace } = parameters;
    const job: WorkerJob = {
      ...{ jobId: "test", modelConfig: model.modelConfig, layout, objective },
      ...(frozen === undefined ? {} : { frozen }),
      ...{ parameters: parameters.job, precision: "fp32", sequenceLength: rowLength },
      batchFields: [...inputFields(), ...targets(objective)],
      ...{ microBatchSize: batch.numRows, evalBatchSize: batch.numRows, generationLength: 0 },
      threadsPerWorker: 1,
    };
    const engine = await createEngine(job);
    t.after(() => engine.close());
    if (frozen !== undefined && loadSpace !== undefined) {
      await loadFrozen(engine, frozen, await readWireSpace(frozen, loadSpace));
    }
    const parameterBytes = new Uint8Array(wireSizeBytes(layout));
    for (const { name: tensor } of layout.tensors) {
      writeSlot(layout, tensor, perturbed(await model.read(tensor)), parameterBytes);
    }
    engine.loadParameters(parameterBytes);
    const numPairs = batch.numRows - 1;
    const wire = new Uint8Array(wireSizeBytes(layout));
    const trained = engine.accumulate(batch, 1 / numPairs, true, wire);
    assert.equal(trained.weight, numPairs);
    const near = (own: number, theirs: number, what: string): void =>
      assert.ok(Math.abs(own - theirs) < 1e-5 * Math.max(1, Math.abs(theirs)), `${what} ${own}`);
    near(trained.lossSum / numPairs, pairs.loss, "loss");
    const gradients = await openSafetensors(pairGradients(name));
    for (const { name: tensor } of layout.tensors) {
      const exact = await gradients.readFloat32(tensor);
      assertClose(readSlot(layout, tensor, wire), exact, 1e-5, tensor);
    }
    await gradients.close();
    const evaluated = engine.evaluate(batch);
    assert.ok(Math.abs(evaluated.lossSum / trained.lossSum - 1) < 1e-6);
    for (const { outputs } of [trained, evaluated]) {
      const scores = scorer?.(objective);
      scores?.add(batch, outputs);
      const values = scores?.values() ?? {};
      assert.deepEqual(
        [...Object.keys(values), ...(notLogged[objective.kind] ?? [])].sort(),
        Object.keys(pairs.figures).sort(),
      );
      for (const [key, value] of Object.entries(values)) {
        near(value, pairs.figures[key] ?? Number.NaN, key);
      }
    }
  });
}
