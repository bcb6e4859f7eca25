import assert from "node:assert/strict";
import { test } from "node:test";
import { computeCase } from "#lib/evaluation/verify/index";
import { type Objective, objectives } from "#lib/objectives/index";
import createEngine from "#lib/tuning/engine";
import { openModel } from "#run/open-model";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { objectiveCase } from "#tests/support/objective-cases";

const models: Readonly<Record<string, string>> = {
  causal_lm: "llama-pad-in-text",
  single_label_classification: "bert-seqcls",
  multi_label_classification: "roberta-multi",
  regression: "bert-regression",
};

for (const { kind, targetsOfLabels } of objectives as readonly Objective[]) {
  // A case of verify-model has labels.
  if (targetsOfLabels === undefined) continue;
  test(`${kind}: verify-model computes the loss that training and evaluation compute`, async () => {
    const name = models[kind] ?? assert.fail(`no model for ${kind}`);
    const { job, batch, reference, wireBytes } = await objectiveCase(name, kind);
    const { model, readWeight, close } = await openModel(modelFixtureDirectory(name));
    const engine = await createEngine(job);
    try {
      const { loss } = await computeCase(model, readWeight, reference);
      engine.loadParameters(wireBytes);
      const evaluated = engine.evaluate(batch);
      const trained = engine.accumulate(batch, 1 / evaluated.weight, true);
      for (const { lossSum, weight } of [evaluated, trained]) {
        assert.ok(Math.abs(lossSum / weight / loss - 1) < 1e-6, `${lossSum / weight} and ${loss}`);
      }
    } finally {
      engine.close();
      await close();
    }
  });
}
