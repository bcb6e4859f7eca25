import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { openSafetensors } from "#lib/checkpoint/index";
import { adapterFacts } from "#lib/models/facts";
import { adapter } from "#lib/parameters/adapter";
import {
  choiceOptions as options,
  methodFixture,
  startingFixture,
} from "#tests/support/method-steps";

type Json = Record<string, unknown>;

const cases = {
  "bert-seqcls": { adapter_config: "double_seq_bn", reduction_factor: 8 },
  "llama-gqa-untied": { adapter_config: "seq_bn", reduction_factor: 4 },
} as const;

for (const [name, settings] of Object.entries(cases)) {
  test(`what is saved of ${name} is what AdapterHub's library saves`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "lockstep-bottlenecks-"));
    t.after(() => rm(directory, { recursive: true, force: true }));
    const fixture = methodFixture(`bottleneck-${name}`);
    const theirs = await openAddedTensors(fixture);
    const model = await startingFixture(name);
    assert.ok(theirs !== undefined);
    const label2id = { LABEL_0: 0, LABEL_1: 1, LABEL_2: 2, LABEL_3: 3 };
    const labelled = { ...model, configChanges: model.isClassifier ? { label2id } : {} };
    const chosen = adapter.choose({ ...settings, non_linearity: null }, labelled, options);
    const values = new Map<string, Float32Array>();
    for (const { name: tensor } of chosen.layout.tensors) {
      const isSaved = theirs.savedWeights.includes(tensor);
      values.set(tensor, await (isSaved ? theirs.readSaved(tensor) : theirs.readAdded(tensor)));
    }
    await model.close();
    await theirs.close();
    await chosen.save(directory, {
      ...{ dtype: "float32", maxShardBytes: 1e9 },
      valuesOf: (slot) => values.get(slot.name) as Float32Array,
    });

    const files = model.isClassifier
      ? ["adapter.safetensors", "model_head.safetensors"]
      : ["adapter.safetensors"];
    for (const file of files) {
      const [own, other] = [
        await openSafetensors(join(directory, file)),
        await openSafetensors(join(fixture, file)),
      ];
      assert.deepEqual([...own.tensors.keys()].sort(), [...other.tensors.keys()].sort());
      for (const key of own.tensors.keys()) {
        assert.deepEqual(await own.readFloat32(key), await other.readFloat32(key), key);
      }
      await own.close();
      await other.close();
    }
    const read = async (from: string, file: string): Promise<Json> =>
      JSON.parse(await readFile(join(from, file), "utf8")) as Json;
    for (const file of model.isClassifier
      ? ["adapter_config.json", "head_config.json"]
      : ["adapter_config.json"]) {
      const [own, other] = [await read(directory, file), await read(fixture, file)];
      const { config: ownFields, ...ownRest } = own;
      const { config: otherFields, ...otherRest } = other;
      assert.deepEqual(ownRest, otherRest);
      // The library's other fields are those of layers that are not here, and have defaults.
      assert.deepEqual(
        { ...(otherFields as Json), ...(ownFields as Json) },
        { ...(otherFields as Json) },
      );
    }
    // Python reads a scaling without a point as the name of one.
    assert.match(await readFile(join(directory, "adapter_config.json"), "utf8"), /"scaling": 1\.0/);
  });
}

test("a directory has the adapters that its configuration names, and unknown fields are told", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-bottlenecks-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const fixture = methodFixture("bottleneck-gpt2");
  await cp(fixture, directory, { recursive: true });
  const json = JSON.parse(await readFile(join(fixture, "adapter_config.json"), "utf8")) as Json;
  const base = {
    ...{ vocabSize: 128, width: 48, numLayers: 2 },
    bottlenecks: adapterFacts({ model_type: "gpt2" }).bottlenecks,
  };
  const read = async (fields: Json, change: Partial<typeof base> = {}) => {
    const config = { ...(json["config"] as Json), ...fields };
    await writeFile(join(directory, "adapter_config.json"), JSON.stringify({ ...json, config }));
    const added = await openAddedTensors(directory);
    try {
      added?.jobFor({ ...base, ...change });
      return added?.warnings ?? [];
    } finally {
      await added?.close();
    }
  };
  assert.deepEqual(await read({}), []);
  assert.match((await read({ zzz: 1 })).join(), /the key zzz is unknown and has no effect/);
  for (const [fields, change, message] of [
    [{ mh_adapter: false }, {}, /h\.0\.attention_adapters\..* is in the file, and .* no adapter/],
    [{ leave_out: [1] }, {}, /h\.1\..* is in the file, and the configuration has no adapter there/],
    [{}, { numLayers: 3 }, /h\.2\..* is not in the file, and the configuration has an adapter/],
  ] as const) {
    await assert.rejects(read(fields, change), { code: "E_ADAPTER_TENSOR", message });
  }
  await assert.rejects(read({ leave_out: "1" }), { code: "E_ADAPTER_CONFIG" });
  await assert.rejects(read({ is_parallel: true }), { code: "E_ADAPTER_UNSUPPORTED" });
});

test("adapters begin as BERT's layers do, and stay the same numbers beside other rates", async () => {
  const model = await startingFixture("gpt2");
  const settings = {
    adapter_config: "double_seq_bn",
    reduction_factor: 1,
    non_linearity: null,
  } as const;
  const valuesWith = async (rateOf: (tensor: { readonly name: string }) => number) => {
    const { layout, loadMasters } = adapter.choose(settings, model, {
      ...options,
      rules: { rateOf },
    });
    const space = new Float32Array(layout.numElements);
    await loadMasters({ start: 0, end: space.length }, space);
    return new Map(
      layout.tensors.map(({ name, offset, size }) => [name, space.slice(offset, offset + size)]),
    );
  };
  const values = await valuesWith(() => 1);
  assert.deepEqual(values, await valuesWith(({ name }) => (name.includes("up") ? 3 : 1)));
  for (const [name, numbers] of values) {
    const deviation = Math.sqrt(numbers.reduce((sum, x) => sum + x * x, 0) / numbers.length);
    if (name.endsWith(".bias")) assert.equal(deviation, 0, name);
    else assert.ok(Math.abs(deviation / 0.02 - 1) < 0.1, `${name}: ${deviation}`);
  }
  assert.equal(
    new Set([...values.values()].map((numbers) => numbers[0])).size,
    values.size / 2 + 1,
  );
  await model.close();
});
