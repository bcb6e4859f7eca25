/** Which weights are held in 4 bits, where they lie, and what they take. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { readNf4 } from "#lib/core/nf4";
import {
  type ParameterLayout,
  regionAt,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { passPieces, readWireRange, readWireSpace } from "#lib/core/wire-space";
import { adapterFacts } from "#lib/models/facts";
import { createModel } from "#lib/models/index";
import { weightsIn } from "#lib/parameters/model";
import { frozenFormOf, frozenLayout, quantizationLines } from "#lib/parameters/quantization";
import { testValues } from "#tests/support/compare";

const settings = {
  ...{ load_in_4bit: true, bnb_4bit_use_double_quant: true },
  ...({ bnb_4bit_quant_type: "nf4", bnb_4bit_compute_dtype: null } as const),
};

const tinyLlama = {
  model_type: "llama",
  ...{ hidden_size: 2048, intermediate_size: 5632, num_hidden_layers: 22, vocab_size: 32_000 },
  ...{ num_attention_heads: 32, num_key_value_heads: 4, max_position_embeddings: 2048 },
};
const gpt2 = {
  model_type: "gpt2",
  ...{ vocab_size: 100, n_positions: 32, n_embd: 24, n_layer: 2, n_head: 4 },
};

function layoutOf(config: Readonly<Record<string, unknown>>, changes = {}): ParameterLayout {
  const { weights } = createModel(config, { task: "causal-lm" });
  const facts = adapterFacts(config);
  const formOf = frozenFormOf({ ...settings, ...changes }, { facts, weights }, "bfloat16");
  return frozenLayout(weights, formOf, facts);
}

const quantisedIn = (layout: ParameterLayout): string[] =>
  layout.tensors
    .filter(({ offset }) => regionAt(layout, offset).dtype.startsWith("nf4"))
    .map(({ name }) => name);

test("1.1B weights take a third of their bfloat16: linear ones are of 4 bits, lm_head and tables are not", () => {
  const layout = layoutOf(tinyLlama);
  const quantised = quantisedIn(layout);
  assert.equal(quantised.length, 22 * 7);
  assert.ok(
    quantised.every((name) => /layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$/.test(name)),
  );
  assert.deepEqual(quantizationLines(layout), [
    "QLoRA: 968,884,224 of 1,100,048,384 frozen weights are in 4 bits (nf4, scales in 8 bits); " +
      "all frozen weights take 0.71 GiB",
  ]);
  // 4 bits and their scales, tables of bfloat16, norms of float32, and less than three blocks of padding.
  const bytes = 968_884_224 * (8512 / 16_384) + 131_072_000 * 2 + 92_160 * 4;
  assert.ok(wireSizeBytes(layout) >= bytes && wireSizeBytes(layout) < bytes + 3 * 65_536 * 4);
  const plain = wireSizeBytes(layoutOf(tinyLlama, { bnb_4bit_use_double_quant: false }));
  assert.equal(plain - wireSizeBytes(layout), (968_884_224 / 16_384) * (9216 - 8512));
  assert.deepEqual(quantisedIn(layoutOf(tinyLlama, { load_in_4bit: false })), []);
});

test("weights stored as [inputs, outputs] are quantised along their inputs, whoever reads which part", async () => {
  const layout = layoutOf(gpt2);
  const read = async (name: string, into?: Float32Array, span = { start: 0, count: 0 }) => {
    const slot = layout.tensors.find((each) => each.name === name);
    const values = testValues(slot?.size ?? 0, name.length);
    into?.set(values.subarray(span.start, span.start + span.count));
    return into ?? values;
  };
  const load = weightsIn(layout, { read });
  const whole = await readWireSpace(layout, load);
  await passPieces(
    layout,
    (range, into) => readWireRange(layout, range, load, into.fill(255)),
    (piece, bytes) => {
      // One piece, as the model is small.
      assert.equal(piece, 0);
      assert.deepEqual(bytes, whole);
    },
  );
  const slot = layout.tensors.find(({ name }) => name === "transformer.h.1.attn.c_attn.weight");
  assert.ok(slot?.isTransposed === true);
  const stored = readNf4(
    "nf4-double",
    slot.size,
    whole.subarray(wireOffsetBytes(layout, slot.offset)),
  );
  const source = await read(slot.name);
  const [rows, columns] = slot.shape as [number, number];
  const worst = source.reduce((most, value, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return Math.max(most, Math.abs(value - (stored[column * rows + row] as number)));
  }, 0);
  const largest = source.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // Half of the widest step between two levels.
  assert.ok(worst < 0.16 * largest, `${worst} of ${largest}`);
});

test("a range that cuts a tensor of 4 bits is refused", async () => {
  const layout = layoutOf(tinyLlama);
  const [first] = layout.regions.filter(({ dtype }) => dtype === "nf4-double");
  const range = { start: first?.start ?? 0, end: (first?.start ?? 0) + 65_536 };
  await assert.rejects(
    readWireRange(layout, range, async () => {}, new Uint8Array(4 * 8512)),
    RangeError,
  );
});

test("another type for products than the run's is refused by name", () => {
  assert.throws(() => layoutOf(tinyLlama, { bnb_4bit_compute_dtype: "float16" }), {
    code: "E_CONFIG_CONFLICT",
    message: /bnb_4bit_compute_dtype, bf16 and fp16.*products of this run are bfloat16/,
  });
  assert.equal(
    quantisedIn(layoutOf(tinyLlama, { bnb_4bit_compute_dtype: "bfloat16" })).length,
    154,
  );
});
