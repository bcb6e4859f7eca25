import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { ModelWeights } from "#lib/checkpoint/index";
import { completeLoraConfig, defaultLoraConfig } from "#lib/checkpoint/peft/index";
import { mastersSha256 } from "#lib/core/masters-hash";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
  regionAt,
  shardRanges,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";
import { adapterFacts, isEmbeddingTable } from "#lib/models/facts";
import { ShardArithmetic } from "#lib/optim/index";
import { checkRates, ratesOf } from "#lib/parameters/index";
import { layOutAdapter } from "#lib/parameters/lora-layout";

type RateSettings = Parameters<typeof ratesOf>[0];
type Values = Readonly<Record<string, readonly number[]>>;

/** Written by tests/reference/make_rates_fixture.py. */
const golden = JSON.parse(readFileSync("tests/fixtures/golden/rates.json", "utf8")) as {
  readonly learning_rate: number;
  readonly weight_decay: number;
  readonly schedule: readonly number[];
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly start: Values;
  readonly gradients: readonly Values[];
  readonly cases: readonly {
    readonly settings: Partial<RateSettings>;
    readonly rates: Readonly<Record<string, number>>;
    readonly after: readonly Values[];
  }[];
  readonly lora_plus: { readonly ratio: number; readonly rates: Readonly<Record<string, number>> };
};

const unsaid = {
  ...{ lr_groups: null, embedding_lr: null, embedding_lr_scale: null, layerwise_lr_decay: null },
  learning_rate: golden.learning_rate,
};
const tensors = Object.entries(golden.shapes).map(([name, shape]) => ({ name, shape }));
const rates = (settings: Partial<RateSettings>) =>
  ratesOf({ ...unsaid, ...settings }, { weights: tensors, isEmbeddingTable });
const optimizer = {
  name: "adamw",
  settings: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: golden.weight_decay },
};

/** A whole space of these values, float32. */
function spaceOf({ tensors: slots, numElements }: ParameterLayout, values: Values): Float32Array {
  const space = new Float32Array(numElements);
  for (const { name, offset } of slots) space.set(values[name] ?? [], offset);
  return space;
}

async function train(
  layout: ParameterLayout,
  numShards: number,
  onStep: (step: number, shards: readonly ShardArithmetic[]) => void = () => {},
): Promise<string> {
  const start = spaceOf(layout, golden.start);
  const shards = await Promise.all(
    shardRanges(layout, numShards).map(async (range) => {
      const shard = await ShardArithmetic.create(layout, range, optimizer);
      shard.masters.set(start.subarray(range.start, range.end));
      return shard;
    }),
  );
  for (const [step, gradient] of golden.gradients.entries()) {
    const wire = new Uint8Array(spaceOf(layout, gradient).buffer);
    for (const shard of shards) {
      const { start: from, end } = shard.range;
      shard.addGroup(
        wire.subarray(wireOffsetBytes(layout, from), wireOffsetBytes(layout, end)),
        true,
      );
      const learningRate = golden.learning_rate * (golden.schedule[step] as number);
      shard.apply({ learningRate, updateNumber: step + 1, gradientScale: 1 });
    }
    onStep(step, shards);
  }
  return mastersSha256(layout, shards);
}

for (const { settings, rates: expected, after } of golden.cases) {
  test(`ten steps are torch's with a group for each rate: ${Object.keys(settings).join(", ")}`, async () => {
    const { rateOf, describe } = rates(settings);
    const layout = buildParameterLayout(tensors, "float32", { rateOf });
    for (const { name, offset } of layout.tensors) {
      const rate = regionAt(layout, offset).rateMultiplier * golden.learning_rate;
      const wanted = expected[name] as number;
      assert.ok(Math.abs(rate - wanted) <= 1e-15, `${name}: ${rate}, not ${wanted}`);
    }
    const digest = await train(layout, 1, (step, [shard]) => {
      for (const { name, offset } of layout.tensors) {
        (after[step]?.[name] ?? []).forEach((value, i) => {
          const got = shard?.masters[offset + i] as number;
          // Of a difference that cancels, its parts count.
          const size = Math.max(Math.abs(value), Math.abs(golden.start[name]?.[i] as number));
          assert.ok(Math.abs(got - value) <= 1e-6 * size, `${name}[${i}]: ${got}, not ${value}`);
        });
      }
    });
    for (const numShards of [2, 3]) assert.equal(await train(layout, numShards), digest);
    const numRates = new Set(Object.values(expected)).size;
    assert.match(describe(layout).join(), new RegExp(`^learning rates: ${numRates} groups, from `));
  });
}

test("LoRA+ gives B, and trained vectors, the rates that peft gives them", async () => {
  const directory = "tests/fixtures/huggingface/base_llama";
  const config = JSON.parse(readFileSync(`${directory}/config.json`, "utf8")) as object;
  const weights = await ModelWeights.open(directory);
  const model = {
    facts: adapterFacts(config as Record<string, unknown>),
    weights: weights.names().map((name) => ({ name, shape: weights.info(name).shape })),
  };
  await weights.close();
  const asked = {
    ...defaultLoraConfig,
    ...{ target_modules: "all-linear", modules_to_save: ["norm"], task_type: "CAUSAL_LM" as const },
  };
  const { ratio, rates: expected } = golden.lora_plus;
  const { trained } = layOutAdapter(completeLoraConfig(asked, model), model, {
    ...{ wireDtype: "float32", frozenDtype: "float32", loraPlusRatio: ratio },
  });
  const got = Object.fromEntries(
    trained.tensors.map(({ name, offset }) => [
      name,
      regionAt(trained, offset).rateMultiplier * golden.learning_rate,
    ]),
  );
  assert.deepEqual(Object.keys(got).sort(), Object.keys(expected).sort());
  for (const [name, rate] of Object.entries(expected)) assert.equal(got[name], rate, name);
});

test("without keys of rates a space is as it was, and a rate costs two blocks at most", () => {
  assert.deepEqual(
    buildParameterLayout(tensors, "bfloat16", { rateOf: rates({}).rateOf }),
    buildParameterLayout(tensors, "bfloat16"),
  );
  assert.deepEqual(rates({}).describe(buildParameterLayout(tensors, "bfloat16")), []);
  const shape = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 2 });
  const names = fc.uniqueArray(fc.string(), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(
      names,
      fc.infiniteStream(shape),
      fc.integer({ min: 1, max: 5 }),
      (list, shapes, n) => {
        const given = list.map((name) => ({ name, shape: shapes.next().value as number[] }));
        const rateOf = ({ name }: { readonly name: string }): number => 1 + (name.length % n);
        const plain = buildParameterLayout(given, "bfloat16");
        const layout = buildParameterLayout(given, "bfloat16", { rateOf });
        const numRates = new Set(given.map(rateOf)).size;
        assert.ok(layout.regions.length <= 2 * numRates);
        assert.ok(layout.numElements - plain.numElements <= 2 * (numRates - 1) * blockElements);
        assert.deepEqual(
          layout.tensors.map(({ name }) => name).sort(),
          plain.tensors.map(({ name }) => name).sort(),
        );
        for (const { name, shape: of, offset, size } of layout.tensors) {
          const region = regionAt(layout, offset);
          assert.equal(region.rateMultiplier, rateOf({ name }));
          assert.equal(region.decays, of.length === 2);
          assert.ok(offset + size <= region.end);
        }
      },
    ),
  );
});

test("what no trained weight belongs to is refused by its name", () => {
  const layout = buildParameterLayout(
    tensors.filter(({ name }) => name.includes("layers.1")),
    "float32",
  );
  const group = (...modules: string[]) => ({ name: "mine", modules, lr: 1 });
  const idle: readonly [Partial<RateSettings>, RegExp][] = [
    [
      { lr_groups: [group("layers.1", "layers.0")] },
      /lr_groups must be .*got "layers.0" in the group "mine"/,
    ],
    [{ lr_groups: [group("mlp"), group("up_proj")] }, /got "up_proj" in the group "mine"/],
    [{ embedding_lr: 0.1 }, /embedding_lr must be null, since no embedding table .* is trained/],
    [{ embedding_lr_scale: 2 }, /embedding_lr_scale must be null/],
  ];
  for (const [settings, message] of idle) {
    assert.throws(() => rates(settings).describe(layout), { code: "E_CONFIG_INVALID", message });
  }
  for (const settings of [
    { lr_groups: [group("a")], loraplus_lr_ratio: 4 },
    { embedding_lr: 1, embedding_lr_scale: 1 },
    { learning_rate: 0, embedding_lr: 1 },
    { learning_rate: 0, lr_groups: [group("a")] },
  ]) {
    assert.throws(() => checkRates({ ...unsaid, loraplus_lr_ratio: null, ...settings }), {
      code: "E_CONFIG_CONFLICT",
    });
  }
});

test("depth is counted in every kind of name, and what is above the layers keeps the rate", () => {
  const names = [
    ...["bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.bias"],
    ...["bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.1.output.dense.bias"],
    ...["bert.pooler.dense.weight", "classifier.weight"],
    ...["transformer.wte.weight", "transformer.h.1.ln_1.weight", "transformer.ln_f.weight"],
    ...["model.layers.0.self_attn.q_proj.lora_A.weight", "score.weight"],
  ];
  const { rateOf } = ratesOf(
    { ...unsaid, layerwise_lr_decay: 0.5 },
    { weights: names.map((name) => ({ name })), isEmbeddingTable },
  );
  assert.deepEqual(
    names.map((name) => rateOf({ name, shape: [1] })),
    [0.125, 0.125, 0.25, 0.5, 1, 1, 0.125, 0.5, 1, 0.25, 1],
  );
});

test("virtual tokens are as far from the top as embedded ones", () => {
  const weights = [0, 1].map((layer) => ({ name: `model.layers.${layer}.mlp.up_proj.weight` }));
  const settings = { ...unsaid, layerwise_lr_decay: 0.5 };
  const { rateOf } = ratesOf(settings, { weights, isEmbeddingTable });
  for (const name of ["prompt_embeddings", "model.embed_tokens.weight"]) {
    assert.equal(rateOf({ name, shape: [3, 8] }), 0.125, name);
  }
});
