import assert from "node:assert/strict";
import { test } from "node:test";
import { freeze } from "#lib/parameters/freeze";
import type { StartingModel } from "#lib/parameters/index";

/** A model of three layers, each value of a weight being its place in the list. */
function model(changes: Partial<StartingModel> = {}): StartingModel {
  const layer = (n: number): string[] =>
    ["input_layernorm", "self_attn.q_proj", "mlp.up_proj"].map(
      (part) => `model.layers.${n}.${part}`,
    );
  const modules = ["lm_head", "model.embed_tokens", ...[0, 1, 2].flatMap(layer), "model.norm"];
  const weights = modules.map((module) => ({
    name: `${module}.weight`,
    shape: module.endsWith("norm") ? [4] : [4, 4],
  }));
  return {
    ...{ name: "m", revision: null, directory: "/m", weights, configChanges: {} },
    digest: async () => "",
    ...{ newWeights: [], isClassifier: false, tiedEmbedding: undefined },
    facts: { modelType: "llama", adapterTargets: [], embeddingModules: [] },
    read: async (name, into, span) => {
      const place = weights.findIndex((weight) => weight.name === name);
      return (into ?? new Float32Array(span?.count ?? 16)).fill(place);
    },
    ...changes,
  };
}

const settings = {
  freeze_trainable_layers: 2,
  freeze_trainable_modules: ["all"],
  freeze_extra_modules: null,
} as const;
const dtypes = {
  wireDtype: "float32",
  frozenDtype: "bfloat16",
  rules: {},
  seed: 1,
  isGiven: () => true,
} as const;

const choose = (changes: Partial<Record<keyof typeof settings, unknown>> = {}, of = model()) =>
  freeze.choose({ ...settings, ...changes } as unknown as typeof settings, of, dtypes);

const namesOf = ({ layout }: ReturnType<typeof choose>): string[] =>
  layout.tensors.map(({ name }) => name.replace(/\.weight$/, "")).sort();

test("positive numbers are the last layers, negative ones the first, whatever there are", () => {
  const layers = (count: number) =>
    new Set(namesOf(choose({ freeze_trainable_layers: count })).map((name) => name.split(".")[2]));
  assert.deepEqual(layers(2), new Set(["1", "2"]));
  assert.deepEqual(layers(-1), new Set(["0"]));
  assert.deepEqual(layers(99), new Set(["0", "1", "2"]));
  assert.match(choose().lines.join(), /^the last 2 of 3 layers: 72 of 144 parameters are trained$/);
});

test("parts of layers and modules outside of them are named as in LLaMA-Factory", () => {
  const parts = { freeze_trainable_layers: 1, freeze_trainable_modules: ["mlp", "self_attn"] };
  const trained = ["model.layers.2.mlp.up_proj", "model.layers.2.self_attn.q_proj"];
  assert.deepEqual(namesOf(choose(parts)), trained);
  const extra = { ...parts, freeze_extra_modules: ["embed_tokens"] };
  assert.deepEqual(namesOf(choose(extra)), ["model.embed_tokens", ...trained]);
  // Part of a name is enough there, so that one name is every norm.
  const norms = { freeze_trainable_layers: 0, freeze_extra_modules: ["norm"] };
  assert.deepEqual(namesOf(choose(norms)), [
    ...[0, 1, 2].map((n) => `model.layers.${n}.input_layernorm`),
    "model.norm",
  ]);
  assert.deepEqual(freeze.fields.freeze_trainable_modules.parse("mlp, self_attn"), [
    "mlp",
    "self_attn",
  ]);
});

test("what is not there is refused with what is, and so is a run that trains nothing", () => {
  for (const [changes, message] of [
    [
      { freeze_trainable_modules: ["attn"] },
      /\(all, input_layernorm, mlp, self_attn\), got "attn"/,
    ],
    [{ freeze_extra_modules: ["head"] }, /\(embed_tokens, lm_head, norm\), got "head"/],
    [{ freeze_trainable_layers: 0 }, /freeze_trainable_layers.*nothing that is trained/],
  ] as const) {
    assert.throws(() => choose(changes), { code: "E_CONFIG_INVALID" });
    assert.throws(
      () => choose(changes),
      ({ message: text }: Error) => message.test(text),
    );
  }
});

test("the head of a new classifier is trained; where everything is, nothing is frozen", () => {
  const classifier = model({ newWeights: ["lm_head.weight"], isClassifier: true });
  assert.ok(namesOf(choose({}, classifier)).includes("lm_head"));
  assert.ok(!namesOf(choose()).includes("lm_head"));
  const whole = choose({
    ...{ freeze_trainable_layers: 3, freeze_extra_modules: ["lm_head", "embed_tokens", "norm"] },
  });
  assert.deepEqual([whole.frozen, whole.loadFrozen], [undefined, undefined]);
});

test("both spaces hold the model's own values, matrices of the frozen one in compute type", async () => {
  const { layout, frozen, loadMasters, loadFrozen } = choose();
  assert.ok(frozen !== undefined && loadFrozen !== undefined);
  const names = model().weights.map(({ name }) => name);
  for (const [space, load] of [
    [layout, loadMasters],
    [frozen, loadFrozen],
  ] as const) {
    for (const { name, offset, size } of space.tensors) {
      const values = new Float32Array(size);
      await load({ start: offset, end: offset + size }, values);
      assert.ok(
        values.every((value) => value === names.indexOf(name)),
        name,
      );
    }
  }
  assert.deepEqual(
    [...layout.tensors, ...frozen.tensors].map(({ name }) => name).sort(),
    [...names].sort(),
  );
});
