/** GGUF files of SentencePiece tokenizers: what llama.cpp's converter writes of them, and what is refused. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { GgufFile } from "#lib/checkpoint/gguf/reader";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer } from "#lib/data/index";
import { exportModel, ggufFileName } from "#run/export-model";
import { findModel } from "#run/model-place";
import { askLlamaCpp } from "#tests/support/llama-cpp";
import { randomDecoders, writeRandomDecoder } from "#tests/support/random-decoders";
import { needs } from "#tests/support/tools";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-sentencepiece-"));
});
after(() => rm(directory, { recursive: true, force: true }));

const path = (...parts: string[]): string => join(directory, ...parts);
const fixture = (...parts: string[]): string =>
  join(packageRoot, "tests/fixtures/gguf-sentencepiece", ...parts);

/** Tokenizers, with the architectures that have them. */
const tokenizers = { llama: "mistral", gemma: "gemma2" } as const;
type Name = keyof typeof tokenizers;

interface Converted {
  readonly metadata: Readonly<Record<string, unknown>>;
  /** With SentencePiece's own ids. */
  readonly texts: readonly { readonly text: string; readonly ids: readonly number[] }[];
}
const convertedOf = async (name: Name) =>
  JSON.parse(await readFile(fixture(name, "converted.json"), "utf8")) as Converted;

type Json = Record<string, unknown>;

/** A model with one of these tokenizers, changed. */
async function writeModel(
  target: string,
  name: Name,
  change: (tokenizer: Json, model: Json) => Json = (tokenizer) => tokenizer,
): Promise<void> {
  await cp(fixture(name), `${target}-tokenizer`, { recursive: true });
  const file = join(`${target}-tokenizer`, "tokenizer.json");
  const tokenizer = JSON.parse(await readFile(file, "utf8")) as Json;
  await writeFile(file, JSON.stringify(change(tokenizer, tokenizer["model"] as Json)));
  // Of the tokenizer, which has them elsewhere than a random decoder's.
  const ids = { bos_token_id: null, eos_token_id: null };
  const config = { ...randomDecoders[tokenizers[name]], ...ids };
  await writeRandomDecoder(target, config, `${target}-tokenizer`);
}

async function exported(model: string) {
  const target = `${model}-gguf`;
  const options = { directory: target, format: "gguf", dtype: "float32" } as const;
  const { warnings } = await exportModel(await findModel(model), {
    ...options,
    onDetail: () => {},
  });
  return { file: join(target, ggufFileName), warnings };
}

test("tokens, scores, types and ids are those of llama.cpp's converter", async () => {
  for (const name of Object.keys(tokenizers) as Name[]) {
    await writeModel(path(name), name);
    const { file, warnings } = await exported(path(name));
    const gguf = await GgufFile.open(file);
    await gguf.close();
    const { metadata } = await convertedOf(name);
    const written = Object.fromEntries(
      [...gguf.metadata].filter(([key]) => key.startsWith("tokenizer.")),
    );
    // Where it says nothing llama.cpp takes these for granted, and the other way round.
    const taken = {
      "tokenizer.ggml.add_eos_token": false,
      "tokenizer.ggml.add_sep_token": false,
      "tokenizer.ggml.add_space_prefix": name === "llama",
    };
    assert.deepEqual({ ...taken, ...written }, { ...taken, ...metadata });
    assert.deepEqual(
      warnings.map((warning) =>
        /before texts that begin with one and parts after special/.test(warning),
      ),
      name === "llama" ? [true] : [],
    );
  }
});

test("llama.cpp cuts texts as SentencePiece and Lockstep do", needs("llamaCpp"), async () => {
  const names = Object.keys(tokenizers) as Name[];
  const requests = [];
  for (const name of names) {
    await writeModel(path(`cut-${name}`), name);
    const { file } = await exported(path(`cut-${name}`));
    const texts = (await convertedOf(name)).texts.map(({ text }) => text);
    requests.push({ ...{ file, texts, specialTexts: [] }, prompt: [1], numTokens: 1 });
  }
  const answers = await askLlamaCpp(requests);
  for (const [i, name] of names.entries()) {
    const expected = (await convertedOf(name)).texts;
    const tokenizer = await loadTokenizer(fixture(name));
    assert.deepEqual(
      answers[i]?.tokens,
      expected.map(({ ids }) => ids),
      name,
    );
    for (const { text, ids } of expected) {
      // What the export says of a text that begins with a blank.
      const isOther = name === "llama" && text.startsWith(" ");
      const ours = [...(await tokenizer.encode(text))];
      assert.deepEqual(ours, isOther ? ids.slice(1) : ids, `${name}: ${text}`);
    }
  }
});

test("a tokenizer that cuts or joins otherwise than llama.cpp is refused", async () => {
  const blanks = { type: "Replace", pattern: { String: " " }, content: "\u2581" };
  const metaspace = { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always" };
  const merges = (model: Json): unknown[] => model["merges"] as unknown[];
  const refused: [string, (tokenizer: Json, model: Json) => Json, RegExp][] = [
    [
      "another replacement",
      (tokenizer) => ({ ...tokenizer, normalizer: { ...blanks, pattern: { String: "a" } } }),
      /by "Replace" of \{"String":"a"\} first/,
    ],
    [
      "another beginning",
      (tokenizer) => ({
        ...tokenizer,
        normalizer: {
          type: "Sequence",
          normalizers: [{ type: "Prepend", prepend: "x" }, blanks],
        },
      }),
      /by "Prepend" of "x" first/,
    ],
    [
      "digits apart",
      (tokenizer) => ({
        ...tokenizer,
        pre_tokenizer: {
          type: "Split",
          pattern: { Regex: "\\d" },
          behavior: "Isolated",
          invert: false,
        },
      }),
      /by "Split" of \{"Regex":"\\\\d"\} first/,
    ],
    [
      "no blanks",
      (tokenizer) => ({ ...tokenizer, normalizer: null, pre_tokenizer: null }),
      /does not write blanks as/,
    ],
    [
      "tokens across words",
      (tokenizer, model) => {
        const vocab = { ...(model["vocab"] as Json) };
        // The last token becomes one of two words.
        const [last = ""] = Object.keys(vocab).slice(-1);
        const id = vocab[last];
        delete vocab[last];
        return {
          ...tokenizer,
          pre_tokenizer: { ...metaspace, split: true },
          model: {
            ...model,
            vocab: { ...vocab, "\u2581the\u2581cat": id },
            merges: merges(model).filter((merge) => !JSON.stringify(merge).includes(last)),
          },
        };
      },
      /cuts texts at blanks first, and llama.cpp would join "\u2581the\u2581cat"/,
    ],
    [
      "a merge less",
      (tokenizer, model) => ({
        ...tokenizer,
        model: { ...model, merges: merges(model).slice(1) },
      }),
      /and no merge of the two: llama.cpp would join them/,
    ],
    [
      "ends of words",
      (tokenizer, model) => ({ ...tokenizer, model: { ...model, end_of_word_suffix: "</w>" } }),
      /marks tokens by their place in a word \(end_of_word_suffix\)/,
    ],
  ];
  for (const [i, [name, change, problem]] of refused.entries()) {
    await writeModel(path(`refused-${i}`), "llama", change);
    await assert.rejects(
      exported(path(`refused-${i}`)),
      { code: "E_GGUF_EXPORT", message: problem },
      name,
    );
  }
});
