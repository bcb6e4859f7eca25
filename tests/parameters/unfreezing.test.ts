import assert from "node:assert/strict";
import { test } from "node:test";
import { buildParameterLayout, regionAt } from "#lib/core/parameter-layout";
import { isEmbeddingTable } from "#lib/models/facts";
import { checkUnfreezing, unfreezingOf } from "#lib/parameters/index";

type Settings = Parameters<typeof checkUnfreezing>[0];
const unsaid: Settings = { unfreeze_steps: null, unfreeze_epochs: null, unfreeze_layers: 1 };
const tensor = (name: string, ...shape: number[]) => ({ name, shape });
const layer = (index: number) => [
  tensor(`model.layers.${index}.self_attn.q_proj.weight`, 4, 4),
  tensor(`model.layers.${index}.input_layernorm.weight`, 4),
];
const embeddings = tensor("model.embed_tokens.weight", 8, 4);
const norm = tensor("model.norm.weight", 4);
const head = tensor("lm_head.weight", 8, 4);
const tied = [embeddings, ...[0, 1, 2].flatMap(layer), norm];

/** The first update of each tensor, and what a person is told. */
function opened(
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
  settings: Partial<Settings>,
  { totalSteps = 100, stepsPerEpoch = 10 } = {},
) {
  const unfreezing = unfreezingOf({ ...unsaid, ...settings }, { isEmbeddingTable, stepsPerEpoch });
  const layout = buildParameterLayout(tensors, "bfloat16", unfreezing.rules);
  const first = new Map(
    layout.tensors.map(({ name, offset }) => [name, regionAt(layout, offset).firstUpdate]),
  );
  return { layout, first, ...unfreezing.describe(layout, totalSteps) };
}

test("from the top to the embeddings; a head that is the embedding table leaves its norm to the last layer", () => {
  const { first, lines, openings } = opened(tied, { unfreeze_steps: 10 });
  const expected = new Map([
    ["model.norm.weight", 1],
    ...[2, 1, 0].flatMap((index, at) =>
      layer(index).map(({ name }) => [name, 1 + 10 * at] as [string, number]),
    ),
    ["model.embed_tokens.weight", 31],
  ] as [string, number][]);
  assert.deepEqual(first, expected);
  assert.deepEqual(lines, [
    "gradual unfreezing: layer 2 and what is above from update 1, layer 1 from update 11, layer 0 from update 21, embeddings from update 31",
  ]);
  assert.deepEqual(
    openings.map(({ updateNumber }) => updateNumber),
    [11, 21, 31],
  );
  assert.equal(
    openings[2]?.text,
    "unfreezing: embeddings, trained from update 31 on; 96 parameters are open",
  );
});

test("a head of its own is first, several layers open at a time, and epochs are counted in steps", () => {
  const { first, lines } = opened([...tied, head], { unfreeze_epochs: 0.5, unfreeze_layers: 2 });
  assert.equal(first.get("lm_head.weight"), 1);
  assert.equal(first.get("model.norm.weight"), 1);
  assert.deepEqual(
    [2, 1, 0].map((index) => first.get(layer(index)[0]?.name ?? "")),
    [6, 6, 11],
  );
  assert.equal(first.get("model.embed_tokens.weight"), 16);
  assert.match(
    lines[0] ?? "",
    /what is above the layers from update 1, layers 1 to 2 from update 6, layer 0/,
  );
});

test("names of BERT and of adapters are in their places; of layers only those count that are trained", () => {
  const bert = [
    tensor("bert.embeddings.word_embeddings.weight", 8, 4),
    tensor("bert.embeddings.LayerNorm.weight", 4),
    tensor("bert.encoder.layer.0.output.dense.weight", 4, 4),
    tensor("bert.encoder.layer.1.output.dense.bias", 4),
    tensor("bert.pooler.dense.weight", 4, 4),
    tensor("classifier.bias", 2),
  ];
  assert.deepEqual(
    bert.map(({ name }) => opened(bert, { unfreeze_steps: 1 }).first.get(name)),
    [4, 4, 3, 2, 1, 1],
  );
  const adapters = [7, 3].map((index) =>
    tensor(`model.layers.${index}.self_attn.q_proj.lora_A.weight`, 2, 4),
  );
  assert.deepEqual([...opened(adapters, { unfreeze_steps: 5 }).first.values()], [1, 6]);
});

test("without the keys a space is as it was; beside rates a region has both", () => {
  assert.deepEqual(opened(tied, {}).layout, buildParameterLayout(tied, "bfloat16"));
  const rateOf = ({ name }: { readonly name: string }): number => (name.includes(".1.") ? 0.5 : 1);
  const { rules } = unfreezingOf(
    { ...unsaid, unfreeze_steps: 10 },
    { isEmbeddingTable, stepsPerEpoch: 1 },
  );
  const layout = buildParameterLayout(tied, "bfloat16", { ...rules, rateOf });
  const both = layout.tensors.map(({ name, offset }) => {
    const { rateMultiplier, firstUpdate } = regionAt(layout, offset);
    return [name, rateMultiplier, firstUpdate];
  });
  const { first } = opened(tied, { unfreeze_steps: 10 });
  assert.equal(both.length, tied.length);
  for (const [name, rate, update] of both) {
    assert.equal(rate, rateOf({ name: String(name) }));
    assert.equal(update, first.get(String(name)));
  }
});

test("what never opens is told, and one opening for all is refused", () => {
  const short = opened(tied, { unfreeze_steps: 10 }, { totalSteps: 15 });
  assert.match(
    short.lines[1] ?? "",
    /^warning: the run ends after 15 steps, before all is opened; as they are stay: layer 0, embeddings$/,
  );
  assert.deepEqual(
    short.openings.map(({ updateNumber }) => updateNumber),
    [11],
  );
  for (const [tensors, settings] of [
    [[tensor("prompt_embeddings", 3, 4)], { unfreeze_steps: 10 }],
    [layer(1), { unfreeze_epochs: 1 }],
    [[...layer(1), ...layer(0), norm], { unfreeze_steps: 10, unfreeze_layers: 2 }],
  ] as const) {
    assert.throws(() => opened(tensors, settings), {
      code: "E_CONFIG_CONFLICT",
      message: /unfreeze_(steps|epochs) and finetuning_type .*opens at once/,
    });
  }
  for (const settings of [{ unfreeze_steps: 1, unfreeze_epochs: 1 }, { unfreeze_layers: 2 }]) {
    assert.throws(() => checkUnfreezing({ ...unsaid, ...settings }), { code: "E_CONFIG_CONFLICT" });
  }
});
