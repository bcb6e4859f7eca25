import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { TextEmbedder as TokenEmbedder } from "#lib/evaluation/embed/index";
import { Generator } from "#lib/evaluation/generate/index";
import { TextClassifier, TextEmbedder, TextGenerator } from "#run/index";
import { openModel } from "#run/open-model";
import { writeTinyChatModel } from "#tests/support/named-models";
import { writeTinyEncoder } from "#tests/support/tiny-classifier";

// The models of texts compute what the models of tokens below them do.

let directory = "";
const encoder = (): string => join(directory, "encoder");
const decoder = (): string => join(directory, "decoder");

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-text-models-"));
  await writeTinyEncoder(encoder(), "bert", 40);
  await writeTinyChatModel(decoder());
});
after(() => rm(directory, { recursive: true, force: true }));

const isError =
  (code: string) =>
  (error: unknown): boolean =>
    isLockstepError(error) && error.code === code;

test("vectors of texts are those of their tokens, and a longer text is refused", async () => {
  const texts = ["the state of the union", "peace"];
  const embedder = await TextEmbedder.open(encoder(), { pooling: "cls" });
  const { tokenizer, maxLength } = embedder;
  assert.equal(maxLength, 40);
  const vectors = await embedder.embed(texts);
  await assert.rejects(embedder.embed(["law ".repeat(50)]), isError("E_SEQUENCE_TOO_LONG"));
  embedder.close();
  const { model, readWeight, close } = await openModel(encoder());
  const ofTokens = await TokenEmbedder.create({ model, readWeight, maxLength, pooling: "cls" });
  await close();
  const ids = await tokenizer.encodeMany(texts, { addSpecialTokens: true });
  assert.deepEqual(vectors, ofTokens.embed(ids));
  ofTokens.close();
});

test("continuations are those of the prompt's tokens, a chat's by its template", async () => {
  const generator = await TextGenerator.open(decoder(), { maxLength: 128 });
  const { tokenizer } = generator;
  const messages = [{ role: "user", content: "One?" }];
  const options = { maxNewTokens: 6 };
  const pieces = ["", ""];
  const found = await generator.generate(["One", messages], {
    ...options,
    onText: (index, piece) => {
      pieces[index] += piece;
    },
  });
  assert.deepEqual(
    pieces,
    found.map(({ text }) => text),
  );
  assert.deepEqual(await generator.generate([]), []);
  await assert.rejects(
    generator.generate(["One"], { maxNewTokens: 128 }),
    isError("E_GENERATION_TOO_LONG"),
  );
  generator.close();
  generator.close();
  await assert.rejects(generator.generate(["One"]), isError("E_CLOSED"));
  const { model, readWeight, close } = await openModel(decoder());
  assert.ok(model.task === "causal-lm");
  const ofTokens = await Generator.create({ model, readWeight, maxLength: 128 });
  await close();
  const rendered = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
  const prompts = [
    await tokenizer.encode("One", { addSpecialTokens: true }),
    await tokenizer.encode(rendered),
  ];
  const expected = await ofTokens.generate(prompts, {
    ...{ doSample: false, temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1, seed: 0 },
    ...{ ...options, endTokenIds: tokenizer.endTokenIds, stopStrings: [] },
  });
  ofTokens.close();
  assert.deepEqual(
    found.map(({ tokens, finish }) => ({ tokens, finish })),
    expected,
  );
});

test("a model of another task is refused by what it is", async () => {
  await assert.rejects(TextGenerator.open(encoder()), isError("E_MODEL_TASK"));
  await assert.rejects(TextClassifier.open(encoder()), /feature-extraction model \(bert\)/);
  await assert.rejects(TextClassifier.open(decoder()), /causal-lm model \(llama\)/);
});

test("an option without a value is not given, and one that means nothing is refused by its name", async () => {
  const generator = await TextGenerator.open(decoder(), { maxLength: 128 });
  const wrong: Readonly<Record<string, unknown>> = {
    ...{ maxNewTokens: 0, temperature: -1, topK: 1.5, topP: 5, repetitionPenalty: "1" },
    ...{
      seed: 1.5,
      doSample: "no",
      stopStrings: "a",
      endTokenIds: 2,
      onText: 1,
      max_new_tokens: 8,
    },
  };
  for (const [name, value] of Object.entries(wrong)) {
    await assert.rejects(
      generator.generate(["One"], { [name]: value }),
      (error) => isError("E_ARGUMENT")(error) && String(error).includes(name),
    );
  }
  const nothing = Object.fromEntries(
    Object.keys(wrong)
      .slice(1, -1)
      .map((name) => [name, undefined]),
  );
  assert.deepEqual(
    await generator.generate(["One"], { ...nothing, maxNewTokens: 4 }),
    await generator.generate(["One"], { maxNewTokens: 4 }),
  );
  for (const prompts of ["One", [{ role: "user", content: "One" }], [null]]) {
    await assert.rejects(
      generator.generate(prompts as unknown as readonly string[]),
      isError("E_ARGUMENT"),
    );
  }
  generator.close();
  const options = [{ batchSize: 0 }, { maxLength: "64" }, { bf16: "yes" }, { max_length: 4 }, null];
  for (const each of options) {
    for (const { open } of [TextGenerator, TextClassifier, TextEmbedder]) {
      await assert.rejects(open(decoder(), each as object), isError("E_ARGUMENT"));
    }
  }
  const pooling = { pooling: "max" } as unknown as { readonly pooling: "mean" };
  await assert.rejects(TextEmbedder.open(encoder(), pooling), isError("E_ARGUMENT"));
});
