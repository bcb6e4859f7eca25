/** GGUF files: what llama.cpp makes of them, and what its converter and import-gguf say of their bytes. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { importGguf, ModelWeights } from "#lib/checkpoint/index";
import { GgufFile } from "#lib/checkpoint/gguf/reader";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer } from "#lib/data/index";
import { exportModel, ggufFileName } from "#run/export-model";
import { openMergedModel } from "#run/merged-model";
import { findAdapter, findModel } from "#run/model-place";
import { TextGenerator } from "#run/text-generator";
import { assertClose } from "#tests/support/compare";
import { askLlamaCpp } from "#tests/support/llama-cpp";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { loraFixtureDirectory } from "#tests/support/lora-fixtures";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { writeTinyChatModel } from "#tests/support/named-models";
import { writeByteTokenizer } from "#tests/support/number-tokenizer";
import { randomDecoders, writeRandomDecoder } from "#tests/support/random-decoders";
import { needs } from "#tests/support/tools";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-gguf-"));
  await importGguf(fixture("tiny-gguf/tiny.gguf"), path("byte-level"));
  await importGguf(fixture("tiny-gguf-sentencepiece/tiny.gguf"), path("sentencepiece"));
});
after(() => rm(directory, { recursive: true, force: true }));

const path = (...parts: string[]): string => join(directory, ...parts);
const fixture = (name: string): string => join(packageRoot, "tests/fixtures", name);

async function exported(model: string, dtype: "float32" | "float16" | "bfloat16" | "q8_0") {
  const target = `${model}-${dtype}-gguf`;
  const warnings: string[] = [];
  const options = { directory: target, format: "gguf", dtype } as const;
  const { warnings: told } = await exportModel(await findModel(model), {
    ...options,
    onDetail: (line) => warnings.push(line),
  });
  return { file: join(target, ggufFileName), warnings: [...told, ...warnings] };
}

const prompt = [41, 70, 262, 286, 13, 222, 18, 19, 20];
const numTokens = 24;

test(
  "llama.cpp continues a text as Lockstep does, for every architecture",
  needs("llamaCpp"),
  async () => {
    const names = Object.keys(randomDecoders);
    const expected: number[][] = [];
    const requests = [];
    for (const [i, name] of names.entries()) {
      const model = path(`random-${i}`);
      await writeRandomDecoder(model, randomDecoders[name] ?? {}, path("byte-level"));
      const generator = await TextGenerator.open(model, { maxLength: 64 });
      const text = await generator.tokenizer.decode(prompt, { skipSpecialTokens: false });
      const [continued] = await generator.generate([text], {
        ...{ maxNewTokens: numTokens, endTokenIds: [] },
      });
      generator.close();
      expected.push([...(continued?.tokens ?? [])]);
      const { file, warnings } = await exported(model, "float32");
      assert.deepEqual(warnings, [], name);
      requests.push({ ...{ file, prompt, numTokens }, texts: [text], specialTexts: [] });
    }
    const answers = await askLlamaCpp(requests);
    for (const [i, { continuation, tokens }] of answers.entries()) {
      assert.deepEqual(tokens, [prompt], names[i]);
      assert.deepEqual(continuation, expected[i], names[i]);
      assert.ok(new Set(continuation).size > 3, `${names[i]} says something`);
    }
  },
);

const texts = [
  "the cat said hello",
  "12 cats, 345 mats!",
  "it's  two\n\nlines \u00e9\u4f60",
  " leading",
];

test(
  "tokens, stop tokens and the chat template are Lockstep's in llama.cpp",
  needs("llamaCpp"),
  async () => {
    await writeTinyChatModel(path("chat"));
    await cp(path("sentencepiece"), path("stops"), { recursive: true });
    // Three ways to end, of which llama.cpp knows none by its name.
    await writeFile(path("stops", "generation_config.json"), '{"eos_token_id": [2, 1, 0]}');
    const requests = [];
    for (const name of ["chat", "stops"]) {
      const { file } = await exported(path(name), "float32");
      const specialTexts = ["<|start|>it is<|end|>", "<s>it is</s>"];
      requests.push({ file, prompt, numTokens: 1, texts, specialTexts });
    }
    const answers = await askLlamaCpp(requests);
    for (const [i, name] of ["chat", "stops"].entries()) {
      const tokenizer = await loadTokenizer(path(name));
      const answer = answers[i] as (typeof answers)[number];
      const encoded = async (text: string) => [...(await tokenizer.encode(text))];
      assert.deepEqual(answer.tokens, await Promise.all(texts.map(encoded)), name);
      assert.equal(answer.addsBos, tokenizer.prefixTokenIds.length > 0);
      assert.deepEqual(
        answer.endTokens,
        tokenizer.endTokenIds.toSorted((a, b) => a - b),
        name,
      );
    }
    const [chat, stops] = answers;
    const tokenizer = await loadTokenizer(path("chat"));
    assert.deepEqual(chat?.specialTokens[0], [
      ...(await tokenizer.encode("<|start|>it is<|end|>")),
    ]);
    assert.equal(chat?.chatTemplate, await readFile(path("chat/chat_template.jinja"), "utf8"));
    assert.equal(stops?.chatTemplate, null);
  },
);

test("import-gguf reads what export wrote: the same tensors, tokenizer and configuration", async () => {
  for (const name of ["byte-level", "sentencepiece"]) {
    const back = path(`${name}-back`);
    await importGguf((await exported(path(name), "float32")).file, back);
    for (const file of await readdir(path(name))) {
      assert.deepEqual(await readFile(join(back, file)), await readFile(path(name, file)), file);
    }
    for (const dtype of ["float16", "bfloat16", "q8_0"] as const) {
      const rounded = path(`${name}-${dtype}-back`);
      await importGguf((await exported(path(name), dtype)).file, rounded);
      const [before, written] = [
        await ModelWeights.open(path(name)),
        await ModelWeights.open(rounded),
      ];
      for (const weight of before.names()) {
        const [exact, near] = [await before.readFloat32(weight), await written.readFloat32(weight)];
        // Of the largest element, half a step; a block's scale is rounded too.
        const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        const step = { float16: 2 ** -11, bfloat16: 2 ** -8, q8_0: 1 / 220 }[dtype];
        const isExact = exact.every(
          (value, i) => Math.abs(value - (near[i] ?? 0)) <= step * largest,
        );
        assert.ok(isExact, `${weight} in ${dtype}`);
      }
      await before.close();
      await written.close();
    }
  }
});

interface ConvertedFile {
  readonly metadata: Readonly<Record<string, unknown>>;
  /** By name: type, shape and SHA-256 of the bytes, or the values of divisors that are computed there in float32. */
  readonly tensors: Readonly<
    Record<string, readonly [string, readonly number[], string | readonly number[]]>
  >;
}

/** A list is long, and compared by its digest. */
const shortened = (value: unknown): unknown =>
  Array.isArray(value) ? createHash("sha256").update(JSON.stringify(value)).digest("hex") : value;

test("metadata and every byte of the tensors are those of llama.cpp's converter", async () => {
  const converted = JSON.parse(await readFile(fixture("gguf_converted.json"), "utf8")) as Readonly<
    Record<string, ConvertedFile>
  >;
  let numFiles = 0;
  for (const [i, name] of Object.keys(randomDecoders).entries()) {
    const model = path(`converted-${i}`);
    await writeRandomDecoder(model, randomDecoders[name] ?? {}, path("byte-level"));
    for (const dtype of ["float32", "float16", "bfloat16", "q8_0"] as const) {
      const expected = converted[`${name}, ${dtype}`];
      if (expected === undefined) continue;
      numFiles++;
      const gguf = await GgufFile.open((await exported(model, dtype)).file);
      const where = `${name} in ${dtype}`;
      for (const [key, value] of Object.entries(expected.metadata)) {
        assert.deepEqual(shortened(gguf.metadata.get(key)), value, `${where}: ${key}`);
      }
      const tensors: Record<string, unknown> = {};
      for (const tensor of gguf.tensors.values()) {
        const bytes = new Uint8Array(tensor.sizeBytes);
        await gguf.readTensorBytes(tensor, 0, bytes);
        const digest = createHash("sha256").update(bytes).digest("hex");
        const values = expected.tensors[tensor.name]?.[2];
        if (typeof values === "object") {
          assertClose(new Float32Array(bytes.buffer), values, 1e-6, tensor.name);
        }
        const held = typeof values === "object" ? values : digest;
        tensors[tensor.name] = [tensor.type, [...tensor.shape], held];
      }
      await gguf.close();
      assert.deepEqual(tensors, expected.tensors, where);
    }
  }
  assert.equal(numFiles, Object.keys(converted).length);
});

test("an adapter is merged into the file, and compared with what the file holds", async () => {
  const base = path("adapted");
  await cp(modelFixtureDirectory("llama-gqa-untied"), base, { recursive: true });
  const { vocab_size: numRows } = JSON.parse(await readFile(join(base, "config.json"), "utf8")) as {
    readonly vocab_size: number;
  };
  await writeByteTokenizer(base, numRows);
  const merged = await lockstepCommand(
    [
      ...["export", loraFixtureDirectory("llama-gqa-untied"), "--base", base],
      ...["--format", "gguf", "--output-dir", path("adapted-gguf"), "--dtype", "float32"],
    ],
    path("cache"),
  );
  assert.equal(merged.code, 0, merged.stderr);
  const [, difference = ""] =
    /differ from the adapter's by up to (\S+);/.exec(merged.lines.join()) ?? [];
  assert.ok(Number(difference) < 1e-4, merged.lines.join());
  await importGguf(path("adapted-gguf", ggufFileName), path("adapted-back"));
  const [ours, back] = [
    await openMergedModel(await findAdapter(loraFixtureDirectory("llama-gqa-untied"), { base })),
    await ModelWeights.open(path("adapted-back")),
  ];
  for (const { name, read } of ours.tensors) {
    assert.deepEqual(await back.readFloat32(name), await read(), name);
  }
  await ours.close();
  await back.close();
});

/** A model with a tokenizer of its own: the tiny byte-level one's files, changed. */
async function withFiles(
  name: string,
  changes: Readonly<Record<string, (json: Record<string, unknown>) => unknown>>,
): Promise<string> {
  const model = path(name);
  await cp(path("byte-level"), model, { recursive: true });
  for (const [file, change] of Object.entries(changes)) {
    const json = JSON.parse(await readFile(join(model, file), "utf8")) as Record<string, unknown>;
    await writeFile(join(model, file), JSON.stringify(change(json)));
  }
  return model;
}

async function metadataOf(file: string) {
  const gguf = await GgufFile.open(file);
  await gguf.close();
  return gguf.metadata;
}

test("templates beside the default one have places of their own", async () => {
  const model = await withFiles("templates", {});
  await mkdir(join(model, "additional_chat_templates"));
  await writeFile(join(model, "additional_chat_templates/tool-use.jinja"), "tools");
  const metadata = await metadataOf((await exported(model, "float32")).file);
  assert.match(String(metadata.get("tokenizer.chat_template")), /messages/);
  assert.deepEqual(metadata.get("tokenizer.chat_templates"), ["tool_use"]);
  assert.equal(metadata.get("tokenizer.chat_template.tool_use"), "tools");
});

test("what llama.cpp takes for granted where a model has nothing is said", async () => {
  const without = (json: Record<string, unknown>) => {
    const { bos_token: _, eos_token: __, bos_token_id: ___, eos_token_id: ____, ...rest } = json;
    return rest;
  };
  const endless = await withFiles("endless", {
    "tokenizer_config.json": without,
    "special_tokens_map.json": without,
    "generation_config.json": () => ({}),
    "config.json": without,
  });
  await writeFile(join(endless, "chat_template.jinja"), "{{ bos_token }}{{ messages }}");
  const { warnings } = await exported(endless, "float32");
  assert.match(warnings[0] ?? "", /no token ends a text, and llama.cpp takes token 11, /);
  assert.match(warnings[1] ?? "", /bos_token, which is empty here, and token 11, .* in llama.cpp/);
  const whole = await withFiles("whole-words", {
    "tokenizer.json": (json) => ({
      ...json,
      model: { ...Object(json["model"]), ignore_merges: true },
    }),
  });
  assert.match((await exported(whole, "float32")).warnings.join(), /are kept whole here/);
  const beyond = await withFiles("beyond", {
    "generation_config.json": () => ({ eos_token_id: [0, 99_999] }),
  });
  const { file, warnings: none } = await exported(beyond, "float32");
  assert.deepEqual(
    [none, (await metadataOf(file)).get("tokenizer.ggml.eot_token_id")],
    [[], undefined],
  );
});

test("what llama.cpp would compute otherwise is refused by name, or said", async () => {
  const refused: [Readonly<Record<string, unknown>>, RegExp][] = [
    [{ model_type: "llama", rope_scaling: { type: "dynamic", factor: 2 } }, /type dynamic/],
    [{ model_type: "llama", hidden_act: "gelu" }, /does not compute gelu/],
    [{ ...randomDecoders["gemma2"], query_pre_attn_scalar: 24 }, /query_pre_attn_scalar/],
    [
      {
        ...randomDecoders["gemma3"],
        num_hidden_layers: 2,
        layer_types: ["sliding_attention", "full_attention"],
      },
      /layer 1 differs/,
    ],
    [
      { ...randomDecoders["gpt2"], scale_attn_by_inverse_layer_idx: true },
      /by the root of the heads' width alone/,
    ],
  ];
  for (const [i, [config, problem]] of refused.entries()) {
    const model = path(`refused-${i}`);
    await writeRandomDecoder(model, config, path("byte-level"));
    await assert.rejects(exported(model, "float32"), { code: "E_GGUF_EXPORT", message: problem });
  }
  const lowering = path("lowering");
  await cp(path("byte-level"), lowering, { recursive: true });
  const tokenizer = JSON.parse(await readFile(join(lowering, "tokenizer.json"), "utf8")) as object;
  const normalizer = { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Lowercase" }] };
  await writeFile(join(lowering, "tokenizer.json"), JSON.stringify({ ...tokenizer, normalizer }));
  await assert.rejects(exported(lowering, "float32"), /changes or cuts texts by "Lowercase" first/);
  const windowed = path("windowed");
  const mistral = { ...randomDecoders["mistral"], sliding_window: 8 };
  await writeRandomDecoder(windowed, mistral, path("byte-level"));
  const { warnings } = await exported(windowed, "float32");
  assert.match(warnings.join(), /no window for llama: texts of more than 8 tokens/);
  const encoder = modelFixtureDirectory("bert-seqcls");
  await assert.rejects(exported(encoder, "float32"), /it is of model_type "bert"; gemma2, /);
});
