import assert from "node:assert/strict";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type ModelTensor, ModelWeights, writeModelDirectory } from "#lib/checkpoint/index";
import { encodeElements } from "#lib/checkpoint/elements";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16 } from "#lib/core/bf16";
import { fixture, rejectsWith, temporaryDirectory } from "./support.js";

async function openWeights(t: TestContext, directory: string): Promise<ModelWeights> {
  const weights = await ModelWeights.open(directory);
  t.after(() => weights.close());
  return weights;
}

const tensorsOf = (weights: ModelWeights, names = weights.names()): ModelTensor[] =>
  names.map((name) => ({
    name,
    shape: weights.info(name).shape,
    read: () => weights.readFloat32(name),
  }));

/** GPT-2's tensors in the order of its state dict, which decides where transformers cuts shards. */
const gpt2Order = [
  "wte.weight",
  "wpe.weight",
  ..."ln_1.weight ln_1.bias attn.c_attn.weight attn.c_attn.bias attn.c_proj.weight attn.c_proj.bias ln_2.weight ln_2.bias mlp.c_fc.weight mlp.c_fc.bias mlp.c_proj.weight mlp.c_proj.bias"
    .split(" ")
    .map((name) => `h.0.${name}`),
  "ln_f.weight",
  "ln_f.bias",
].map((name) => `transformer.${name}`);

test("shards of transformers are read, and written again equal to the byte", async (t) => {
  const source = fixture("sharded-gpt2");
  const weights = await openWeights(t, source);
  assert.equal(weights.names().length, 16);
  assert.deepEqual(weights.info("transformer.wte.weight").dtype, "F32");
  const directory = await temporaryDirectory(t);
  const tensors = tensorsOf(weights, gpt2Order);
  await writeModelDirectory(directory, {
    sourceDir: source,
    tensors,
    dtype: "float32",
    maxShardBytes: 5000,
  });
  const names = (await readdir(source)).sort();
  assert.deepEqual((await readdir(directory)).sort(), names);
  for (const name of names) {
    const [ours, theirs] = await Promise.all([
      readFile(join(directory, name), "utf8"),
      readFile(join(source, name), "utf8"),
    ]);
    assert.equal(ours, theirs, name);
  }
});

test("a bfloat16 directory holds the rounded weights and says so in config.json", async (t) => {
  const source = fixture("tiny-llama");
  const weights = await openWeights(t, source);
  const directory = await temporaryDirectory(t);
  await writeModelDirectory(directory, {
    sourceDir: source,
    tensors: tensorsOf(weights),
    dtype: "bfloat16",
  });
  const config = await readFile(join(directory, "config.json"), "utf8");
  const original = await readFile(join(source, "config.json"), "utf8");
  // Nothing but the type changes and v4's names are added: Python's floats keep their spelling.
  assert.equal(
    config,
    original
      .replace('"dtype": "float32"', '"dtype": "bfloat16"')
      .replace(/ {2}"tie_word/, '  "rope_scaling": null,\n  "rope_theta": 10000.0,\n$&'),
  );
  assert.ok((await readdir(directory)).includes("generation_config.json"));
  const written = await openWeights(t, directory);
  assert.deepEqual(written.names(), weights.names());
  for (const name of written.names()) {
    assert.equal(written.info(name).dtype, "BF16");
    const rounded = bfloat16ToFloat32(float32ToBfloat16(await weights.readFloat32(name)));
    assert.deepEqual(await written.readFloat32(name), rounded);
  }
});

test("a tied head is left out; a config without a dtype gets one", async (t) => {
  const [source, directory] = [await temporaryDirectory(t), await temporaryDirectory(t)];
  await writeFile(
    join(source, "config.json"),
    '{\n  "eps": 1e-05,\n  "tie_word_embeddings": true\n}\n',
  );
  const read = (): Float32Array => Float32Array.of(1);
  await writeModelDirectory(directory, {
    sourceDir: source,
    tensors: ["lm_head.weight", "model.norm.weight"].map((name) => ({ name, shape: [1], read })),
    dtype: "float16",
  });
  assert.deepEqual((await openWeights(t, directory)).names(), ["model.norm.weight"]);
  assert.equal(
    await readFile(join(directory, "config.json"), "utf8"),
    '{\n  "dtype": "float16",\n  "eps": 1e-05,\n  "tie_word_embeddings": true\n}\n',
  );
});

test("what is not a model directory is refused by name", async (t) => {
  const directory = await temporaryDirectory(t);
  await rejectsWith(ModelWeights.open(join(directory, "none")), "E_FILE_NOT_FOUND");
  await rejectsWith(ModelWeights.open(directory), "E_MODEL_DIRECTORY", /neither/);
  await writeFile(join(directory, "pytorch_model.bin"), "");
  await rejectsWith(ModelWeights.open(directory), "E_MODEL_DIRECTORY", /pickle/);
  const weights = await openWeights(t, fixture("tiny-llama"));
  assert.throws(() => weights.info("layers.0.mlp.up_proj.weight"), /nearest name is "model.layers/);
  await rejectsWith(
    writeModelDirectory(directory, { sourceDir: directory, tensors: [], dtype: "float32" }),
    "E_FILE_NOT_FOUND",
    /config\.json/,
  );
});

test("an index that lies is refused", async (t) => {
  const directory = await temporaryDirectory(t);
  const shard = "model-00001-of-00005.safetensors";
  await copyFile(fixture("sharded-gpt2", shard), join(directory, shard));
  await mkdir(join(directory, "sub"));
  const cases: readonly [unknown, RegExp][] = [
    [{}, /no weight_map/],
    [{ weight_map: {} }, /empty/],
    [{ weight_map: { x: 1 } }, /not a file name/],
    [{ weight_map: { x: "../secret.safetensors" } }, /not the name of a .safetensors file/],
    [{ weight_map: { x: "/etc/passwd" } }, /not the name/],
    [{ weight_map: { x: "model.bin" } }, /not the name/],
    [{ weight_map: { x: shard } }, /does not hold it/],
  ];
  for (const [index, message] of cases) {
    await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify(index));
    await rejectsWith(ModelWeights.open(directory), "E_WEIGHTS_INDEX", message);
  }
  const missing = { weight_map: { x: "model-00009-of-00009.safetensors" } };
  await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify(missing));
  await rejectsWith(ModelWeights.open(directory), "E_FILE_NOT_FOUND", /00009/);
  await writeFile(join(directory, "model.safetensors.index.json"), "{");
  await rejectsWith(ModelWeights.open(directory), "E_JSON_FILE");
});

test("a number that a half type rounds to infinity is refused, and an infinity stays one", () => {
  const below = (value: number): number => {
    const bits = new Uint32Array(Float32Array.of(value).buffer);
    bits[0] = (bits[0] as number) - 1;
    return new Float32Array(bits.buffer)[0] as number;
  };
  for (const [dtype, border, widen] of [
    ["float16", 65_520, float16ToFloat32],
    ["bfloat16", (2 - 2 ** -8) * 2 ** 127, bfloat16ToFloat32],
  ] as const) {
    const stored = (value: number): number => {
      const [bytes] = encodeElements(Float32Array.of(1, value), dtype, "w");
      const halves = new Uint16Array((bytes as Uint8Array).slice().buffer);
      return widen(halves)[1] as number;
    };
    for (const sign of [1, -1]) {
      assert.ok(Number.isFinite(stored(sign * below(border))), dtype);
      assert.throws(() => stored(sign * border), { code: "E_TENSOR_RANGE" });
      assert.equal(stored(sign * Number.POSITIVE_INFINITY), sign * Number.POSITIVE_INFINITY);
    }
    assert.ok(Number.isNaN(stored(Number.NaN)));
  }
});
