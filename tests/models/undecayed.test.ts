import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type ParameterLayout, regionAt } from "#lib/core/parameter-layout";
import { currentWeightName, modelFacts } from "#lib/models/facts";
import { loraFixtures, readLoraFixture } from "#tests/support/lora-fixtures";
import { modelFixtures, readFixtureSpace } from "#tests/support/model-fixtures";

// The rule here is by shape, transformers' by names and modules: they leave the same weights without decay.

/** Written by tests/reference/make_decay_fixture.py. */
const golden = JSON.parse(readFileSync("tests/fixtures/golden/undecayed.json", "utf8")) as {
  readonly models: Readonly<Record<string, readonly string[]>>;
  readonly adapters: Readonly<Record<string, readonly string[]>>;
};

const undecayed = (layout: ParameterLayout): string[] =>
  layout.tensors
    .filter(({ offset }) => !regionAt(layout, offset).decays)
    .map(({ name }) => name)
    .sort();

test("the weights of every architecture that do not decay are those of transformers", async () => {
  const types = new Set<string>();
  for (const name of modelFixtures) {
    const { layout, modelConfig } = await readFixtureSpace(name);
    const type = String(modelConfig["model_type"]);
    const names = undecayed(layout).map((stored) => currentWeightName(stored, type));
    assert.deepEqual(names, golden.models[name], name);
    types.add(type);
  }
  assert.deepEqual([...types].sort(), Object.keys(modelFacts).sort());
});

test("all of an adapter decays, and of what is saved whole what decays in transformers", async () => {
  for (const name of loraFixtures) {
    const { job } = await readLoraFixture(name, "fp32");
    assert.deepEqual(undecayed(job.layout), golden.adapters[name], name);
  }
});
