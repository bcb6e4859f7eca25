import assert from "node:assert/strict";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  ModelWeights,
  openSafetensors,
  readTrainerState,
  type StoredDtype,
  writeModelDirectory,
  writeSafetensors,
} from "#lib/checkpoint/index";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { currentWeightName, isEmbeddingTable } from "#lib/models/facts";
import { fixture, rejectsWith, temporaryDirectory } from "./support.js";

const huggingface = (...parts: string[]): string => fixture("huggingface", ...parts);

async function openWeights(t: TestContext, directory: string): Promise<ModelWeights> {
  const weights = await ModelWeights.open(directory, currentWeightName);
  t.after(() => weights.close());
  return weights;
}

for (const name of [
  "base_bert_seqcls",
  "base_gpt2",
  "base_llama",
  "base_qwen2",
  "out_full/final",
  "out_full/checkpoint-5",
  "out_full/checkpoint-10",
]) {
  test(`${name} of transformers is read, and written again equal to the byte`, async (t) => {
    const sourceDir = huggingface(name);
    const weights = await openWeights(t, sourceDir);
    const directory = await temporaryDirectory(t);
    await writeModelDirectory(directory, {
      sourceDir,
      dtype: weights.dtype(),
      tensors: weights.names().map((tensor) => ({
        name: tensor,
        shape: weights.info(tensor).shape,
        read: () => weights.readFloat32(tensor),
      })),
    });
    const files = (await readdir(sourceDir)).filter((file) => file !== "trainer_state.json");
    assert.deepEqual((await readdir(directory)).sort(), files.sort());
    for (const file of files) {
      const [ours, theirs] = await Promise.all(
        [directory, sourceDir].map((place) => readFile(join(place, file), "latin1")),
      );
      // For transformers 4, the only addition.
      const isRotary = /\n {2}"rope_(?:theta|scaling)": .*/g;
      assert.equal(file === "config.json" ? ours?.replace(isRotary, "") : ours, theirs, file);
    }
  });
}

test("the states of all runs are read", async () => {
  for (const run of ["out_full", "out_lora"]) {
    for (const place of ["", "checkpoint-5", "checkpoint-10"]) {
      const state = await readTrainerState(huggingface(run, place));
      assert.equal(state.train_batch_size, 2);
    }
  }
});

/** Copies a directory with its tensors renamed and, if asked, stored in another type. */
async function renamed(
  t: TestContext,
  source: string,
  rename: (name: string) => string | undefined,
  extra: Readonly<Record<string, StoredDtype>> = {},
): Promise<string> {
  const directory = await temporaryDirectory(t);
  await cp(source, directory, { recursive: true });
  const file = await openSafetensors(join(source, "model.safetensors"));
  t.after(() => file.close());
  const stored = new Map(
    [...file.tensors.keys()].flatMap((name): [string, string][] => {
      const other = rename(name);
      return other === undefined ? [] : [[other, name]];
    }),
  );
  const entries = [...stored].map(([name, old]) => ({ ...file.info(old), name }));
  const extras = Object.entries(extra).map(([name, dtype]) => ({ name, shape: [0], dtype }));
  await writeSafetensors(join(directory, "model.safetensors"), [...entries, ...extras], (name) => {
    const old = stored.get(name);
    return old === undefined ? new Uint8Array(0) : file.readBytes(old);
  });
  return directory;
}

async function sameWeights(t: TestContext, directory: string, source: string): Promise<void> {
  const [ours, theirs] = [await openWeights(t, directory), await openWeights(t, source)];
  assert.deepEqual(ours.names(), theirs.names());
  for (const name of ours.names()) {
    assert.deepEqual(ours.info(name).shape, theirs.info(name).shape);
    assert.deepEqual(await ours.readFloat32(name), await theirs.readFloat32(name), name);
  }
}

test("the hub's GPT-2 has no prefix and stores its masks; both are put right", async (t) => {
  const source = huggingface("base_gpt2");
  const directory = await renamed(t, source, (name) => name.replace(/^transformer\./, ""), {
    "h.0.attn.bias": "U8",
    "h.0.attn.masked_bias": "F32",
  });
  await sameWeights(t, directory, source);
});

test("BERT files of old call the norm's weights gamma and beta; a bare encoder has no prefix", async (t) => {
  const source = huggingface("base_bert_seqcls");
  const old = await renamed(
    t,
    source,
    (name) =>
      name
        .replace(/LayerNorm\.weight$/, "LayerNorm.gamma")
        .replace(/LayerNorm\.bias$/, "LayerNorm.beta"),
    { "bert.embeddings.position_ids": "I64" },
  );
  await sameWeights(t, old, source);
  const bare = await openWeights(
    t,
    await renamed(t, source, (name) =>
      name.startsWith("bert.") ? name.slice("bert.".length) : undefined,
    ),
  );
  assert.ok(bare.names().every((name) => name.startsWith("bert.")));
  const both = await renamed(t, source, (name) =>
    name === "classifier.bias" ? "embeddings.word_embeddings.weight" : name,
  );
  await rejectsWith(
    ModelWeights.open(both, currentWeightName),
    "E_DUPLICATE_TENSOR",
    /bert.embeddings.word/,
  );
});

test("names of other architectures", () => {
  const cases: readonly [string, string, string][] = [
    ["llama", "layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"],
    ["llama", "model.norm.weight", "model.norm.weight"],
    ["llama", "score.weight", "score.weight"],
    ["gpt2", "transformer.h.0.attn.c_attn.bias", "transformer.h.0.attn.c_attn.bias"],
    [
      "roberta",
      "encoder.layer.0.output.LayerNorm.gamma",
      "roberta.encoder.layer.0.output.LayerNorm.weight",
    ],
    [
      "distilbert",
      "transformer.layer.0.ffn.lin1.weight",
      "distilbert.transformer.layer.0.ffn.lin1.weight",
    ],
    ["strange", "h.0.weight", "h.0.weight"],
    ["constructor", "wte.weight", "wte.weight"],
  ];
  for (const [modelType, stored, current] of cases) {
    assert.equal(currentWeightName(stored, modelType), current, stored);
  }
  for (const buffer of [
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "transformer.h.11.attn.bias",
    "embeddings.position_ids",
  ]) {
    assert.ok(isDerivedTensor(buffer), buffer);
  }
  for (const [name, isTable] of [
    ["model.embed_tokens.weight", true],
    ["transformer.wpe.weight", true],
    ["bert.embeddings.token_type_embeddings.weight", true],
    ["lm_head.weight", false],
    ["transformer.h.0.attn.c_attn.weight", false],
  ] as const) {
    assert.equal(isEmbeddingTable(name), isTable, name);
  }
});

test("the source's type is that of most of its elements; torch_dtype of v4 is rewritten in place", async (t) => {
  const source = huggingface("base_llama");
  const weights = await openWeights(t, source);
  assert.equal(weights.dtype(), "float32");
  const old = await temporaryDirectory(t);
  const config = await readFile(join(source, "config.json"), "utf8");
  const v4 = config
    .replace('"dtype"', '"torch_dtype"')
    .replace(/"rope_parameters": \{[^}]*\}/, '"rope_theta": 10000.0,\n  "rope_scaling": null');
  await writeFile(join(old, "config.json"), v4);
  for (const dtype of ["bfloat16", "float16"] as const) {
    const directory = await temporaryDirectory(t);
    await writeModelDirectory(directory, {
      sourceDir: old,
      dtype,
      tensors: weights.names().map((name) => ({
        name,
        shape: weights.info(name).shape,
        read: () => weights.readFloat32(name),
      })),
    });
    assert.equal((await openWeights(t, directory)).dtype(), dtype);
    assert.equal(
      await readFile(join(directory, "config.json"), "utf8"),
      v4.replace('"torch_dtype": "float32"', `"torch_dtype": "${dtype}"`),
    );
  }
});

test("a pickle is refused with the way to convert it", async (t) => {
  for (const name of ["pytorch_model.bin", "pytorch_model.bin.index.json"]) {
    const directory = await temporaryDirectory(t);
    await writeFile(join(directory, name), "");
    await rejectsWith(ModelWeights.open(directory), "E_MODEL_DIRECTORY", /pickle.*save_pretrained/);
  }
});
