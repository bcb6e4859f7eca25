import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Tokenizer as NativeTokenizer } from "tokenizers";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { cutBetweenWords, tokensSurviveCuts } from "#lib/data/text-cuts";

const fixtures = join(packageRoot, "tests/fixtures");

interface TokenizerFixture {
  vocab_size: number;
  bos_token_id: number;
  eos_token_id: number;
  cases: { text: string; ids: number[]; decoded: string; decoded_without_special: string }[];
  chats: {
    messages: { role: string; content: string }[];
    add_generation_prompt: boolean;
    text: string;
    ids: number[];
  }[];
}

let expected: TokenizerFixture;
let tokenizer: Tokenizer;
let directory: string;

before(async () => {
  // Written by tests/reference/make_tokenizer_fixture.py with Hugging Face's libraries.
  const text = await readFile(join(fixtures, "tokenizer_ids.json"), "utf8");
  expected = JSON.parse(text) as TokenizerFixture;
  tokenizer = await loadTokenizer(join(fixtures, "tok"));
  directory = await mkdtemp(join(tmpdir(), "lockstep-tokenizer-"));
});
after(() => rm(directory, { recursive: true }));

async function variant(files: Record<string, string | null>): Promise<string> {
  const target = await mkdtemp(join(directory, "tok-"));
  await cp(join(fixtures, "tok"), target, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    if (content === null) await rm(join(target, name));
    else await writeFile(join(target, name), content);
  }
  return target;
}

test("ids and decoded texts equal those of Hugging Face's Python library", async () => {
  assert.ok(expected.cases.length >= 9);
  const ids = await tokenizer.encodeMany(expected.cases.map(({ text }) => text));
  for (const [i, { ids: expectedIds, text, ...decoded }] of expected.cases.entries()) {
    assert.deepEqual([...(ids[i] ?? [])], expectedIds, JSON.stringify(text));
    assert.deepEqual([...(await tokenizer.encode(text))], expectedIds);
    assert.equal(
      await tokenizer.decode(expectedIds, { skipSpecialTokens: false }),
      decoded.decoded,
    );
    assert.equal(await tokenizer.decode(expectedIds), decoded.decoded_without_special);
  }
});

test("special tokens have the ids that transformers gives them", () => {
  assert.equal(tokenizer.vocabSize, expected.vocab_size);
  assert.equal(tokenizer.bosTokenId, expected.bos_token_id);
  assert.equal(tokenizer.eosTokenId, expected.eos_token_id);
  assert.deepEqual(tokenizer.endTokenIds, [expected.eos_token_id]);
  assert.equal(tokenizer.documentSeparatorTokenId, tokenizer.tokenId("<|endoftext|>"));
  assert.equal(tokenizer.tokenId("no such token"), null);
});

test("chat templates render as in transformers, from either file", async () => {
  const template = await readFile(join(fixtures, "tok/chat_template.jinja"), "utf8");
  const config = JSON.parse(
    await readFile(join(fixtures, "tok/tokenizer_config.json"), "utf8"),
  ) as object;
  const inConfig = (chat_template: unknown): Promise<string> =>
    variant({
      "chat_template.jinja": null,
      "tokenizer_config.json": JSON.stringify({ ...config, chat_template }),
    });
  const tokenizers = [
    tokenizer,
    await loadTokenizer(await inConfig(template)),
    await loadTokenizer(
      await inConfig([
        { name: "tool_use", template: "x" },
        { name: "default", template },
      ]),
    ),
  ];
  for (const each of tokenizers) {
    for (const chat of expected.chats) {
      const text = each.applyChatTemplate(chat.messages, {
        addGenerationPrompt: chat.add_generation_prompt,
      });
      assert.equal(text, chat.text);
      assert.deepEqual([...(await each.encode(text))], chat.ids);
    }
  }
});

test("special tokens are found in the files of older transformers and in config.json", async () => {
  const old = await loadTokenizer(
    await variant({
      "tokenizer_config.json": "{}",
      "special_tokens_map.json": JSON.stringify({
        eos_token: { content: "<|im_end|>", lstrip: false },
        bos_token: "<|im_start|>",
      }),
    }),
  );
  assert.deepEqual([old.eosTokenId, old.bosTokenId], [2, 1]);
  const fromConfig = await loadTokenizer(
    await variant({
      "tokenizer_config.json": null,
      "config.json": JSON.stringify({ eos_token_id: [2, 0], bos_token_id: 1 }),
      "generation_config.json": JSON.stringify({ eos_token_id: [0, 2] }),
    }),
  );
  assert.deepEqual([fromConfig.eosTokenId, fromConfig.bosTokenId], [2, 1]);
  assert.deepEqual(fromConfig.endTokenIds, [0, 2]);
});

test("truncation and padding saved in tokenizer.json do not cut training text", async () => {
  const definition = JSON.parse(
    await readFile(join(fixtures, "tok/tokenizer.json"), "utf8"),
  ) as Record<string, unknown>;
  definition.truncation = {
    direction: "Right",
    max_length: 3,
    strategy: "LongestFirst",
    stride: 0,
  };
  definition.padding = {
    strategy: { Fixed: 50 },
    direction: "Right",
    pad_to_multiple_of: null,
    pad_id: 0,
    pad_type_id: 0,
    pad_token: "<|endoftext|>",
  };
  const file = JSON.stringify(definition);
  const truncating = await loadTokenizer(await variant({ "tokenizer.json": file }));
  for (const { text, ids } of expected.cases) {
    assert.deepEqual([...(await truncating.encode(text))], ids);
  }
});

/** Pre-tokenizers as the families write them; the vocabulary stays that of the fixture. */
const preTokenizers = {
  "GPT-2": { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  SmolLM2: {
    type: "Sequence",
    pretokenizers: [
      { type: "Digits", individual_digits: true },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
  "Llama 3": splitBy(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
  "Qwen 3": splitBy(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
  "GPT-4o": splitBy(
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
};

function splitBy(pattern: string): object {
  return {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  };
}

for (const [family, preTokenizer] of Object.entries(preTokenizers)) {
  test(`cutting a long text between words changes none of its tokens (${family})`, async () => {
    const definition = JSON.parse(
      await readFile(join(fixtures, "tok/tokenizer.json"), "utf8"),
    ) as object;
    const json = JSON.stringify({ ...definition, pre_tokenizer: preTokenizer });
    assert.equal(tokensSurviveCuts(json), true);
    const each = await loadTokenizer(await variant({ "tokenizer.json": json }));
    // Few of the fixture's tokens hold white space: the parts that the model gets tell more than ids.
    const splitter = NativeTokenizer.fromString(json).getPreTokenizer();
    const parts = (text: string): string[] =>
      (splitter?.preTokenizeString(text) ?? []).map(([part]) => part);
    const fragments = fc.constantFrom(
      ...["the th", "Hello wor", "the", "Hello", "THe É", " ", "  ", "\n", "\n\n", "\r\n"],
      ...[".", "/", "7", "12345", "é", "🙂", "'s", "'S e", "\t", "\u0301", "<|im_end|>"],
    );
    const texts = fc.array(fragments, { maxLength: 30, size: "max" }).map((list) => list.join(""));
    let numCut = 0;
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        const pieces = cutBetweenWords(text, 5);
        if (pieces.length > 1) numCut++;
        assert.equal(pieces.join(""), text);
        assert.deepEqual(pieces.flatMap(parts), parts(text));
        const inPieces = (await each.encodeMany(pieces)).flatMap((ids) => [...ids]);
        assert.deepEqual(inPieces, [...(await each.encode(text))]);
      }),
      { numRuns: 150 },
    );
    assert.ok(numCut > 30, `only ${numCut} texts were cut`);
  });
}

test("tokenizers that look across a word boundary are not given cut texts", () => {
  const definition = (change: object): string =>
    JSON.stringify({ pre_tokenizer: { type: "ByteLevel", add_prefix_space: false }, ...change });
  assert.equal(tokensSurviveCuts(definition({})), true);
  assert.equal(tokensSurviveCuts(definition({ pre_tokenizer: null })), false);
  assert.equal(tokensSurviveCuts(definition({ pre_tokenizer: { type: "Metaspace" } })), false);
  const prefixed = { type: "ByteLevel", add_prefix_space: true };
  assert.equal(tokensSurviveCuts(definition({ pre_tokenizer: prefixed })), false);
  const stripping = [{ content: "<mask>", lstrip: true }];
  assert.equal(tokensSurviveCuts(definition({ added_tokens: stripping })), false);
});

test("a text longer than one native call keeps its tokens and reports progress", async () => {
  const text = "the quick brown fox, hello hello.\n\n".repeat(20_000);
  const progress: number[] = [];
  const [ids] = await tokenizer.encodeMany([text], { onProgress: (done) => progress.push(done) });
  assert.equal(progress.at(-1), text.length);
  assert.equal(await tokenizer.decode(ids ?? []), text);
  const line = await tokenizer.encode("the quick brown fox, hello hello.\n\nthe");
  assert.deepEqual([...(ids?.subarray(0, line.length) ?? [])], [...line]);
});

test("missing, broken and template-less tokenizers are errors of the catalogue", async () => {
  const code = (expectedCode: string) => (error: unknown) =>
    isLockstepError(error) && error.code === expectedCode;
  await assert.rejects(loadTokenizer(join(directory, "none")), code("E_FILE_NOT_FOUND"));
  for (const broken of ["{", "[]", '{"version":"1.0"}']) {
    const target = await variant({ "tokenizer.json": broken });
    await assert.rejects(loadTokenizer(target), code("E_TOKENIZER_INVALID"));
  }
  const badConfig = await variant({ "tokenizer_config.json": "nonsense" });
  await assert.rejects(loadTokenizer(badConfig), code("E_TOKENIZER_INVALID"));
  const badTemplate = await variant({ "chat_template.jinja": "{% if %}" });
  await assert.rejects(loadTokenizer(badTemplate), code("E_CHAT_TEMPLATE_FAILED"));
  const plain = await loadTokenizer(await variant({ "chat_template.jinja": null }));
  assert.equal(plain.hasChatTemplate, false);
  assert.throws(() => plain.applyChatTemplate([]), code("E_CHAT_TEMPLATE_MISSING"));
  const raising = await loadTokenizer(
    await variant({ "chat_template.jinja": "{{ raise_exception('roles must alternate') }}" }),
  );
  assert.throws(() => raising.applyChatTemplate([]), /roles must alternate/);
});
