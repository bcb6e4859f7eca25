import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import { packageRoot } from "#lib/core/paths";
import {
  evaluationBatches,
  loadTokenizer,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
  type Tokenizer,
} from "#lib/data/index";
import { writeCaseModel } from "#tests/support/case-job";
import { targetsOf, tokensOf } from "#tests/support/batches";

// Written by tests/reference/make_text_tokens_fixture.py with transformers.

interface Row {
  readonly text?: string;
  readonly prompt?: string;
  readonly completion?: string;
}
interface Expected {
  readonly ids: readonly number[];
  /** Of a completion: the first token that is learnt. */
  readonly start?: number;
}
type Json = Readonly<Record<string, unknown>>;
interface Variant {
  readonly base: "bytes" | "byte_level_bpe" | "unigram" | "wordpiece";
  readonly changes?: Json;
  readonly added?: readonly Json[];
  readonly files: Readonly<Record<string, unknown>>;
  readonly vocab_size: number;
  readonly added_vocab: Readonly<Record<string, number>>;
  readonly special: readonly number[];
  readonly eos_token_id: number | null;
  readonly rows: Readonly<Record<string, Expected>>;
  readonly chats: readonly (readonly number[])[];
}
interface Fixture {
  readonly bytes: Json & { readonly added_tokens: readonly Json[] };
  readonly rows: readonly Row[];
  readonly variants: Readonly<Record<string, Variant>>;
}

const fixtures = join(packageRoot, "tests/fixtures");
const fixture = JSON.parse(await readFile(join(fixtures, "text_tokens.json"), "utf8")) as Fixture;
const directory = await mkdtemp(join(tmpdir(), "lockstep-text-tokens-"));
after(() => rm(directory, { recursive: true }));

/** What stands between documents: `<|endoftext|>` where the vocabulary has it, else the end token. */
const separators = { bytes: 0, byte_level_bpe: 0, unigram: 2, wordpiece: null };

let numPlaces = 0;
async function place(): Promise<string> {
  const path = join(directory, String(numPlaces++));
  await mkdir(path);
  return path;
}

async function tokenizerOf({ base, changes, added = [], files }: Variant): Promise<Tokenizer> {
  const path = await place();
  const definition =
    base === "bytes"
      ? fixture.bytes
      : (JSON.parse(
          await readFile(join(fixtures, "tokenizers", base, "tokenizer.json"), "utf8"),
        ) as Fixture["bytes"]);
  const tokenizer = {
    ...definition,
    ...changes,
    added_tokens: [...definition.added_tokens, ...added],
  };
  for (const [name, content] of Object.entries({ ...files, "tokenizer.json": tokenizer })) {
    await writeFile(join(path, name), JSON.stringify(content));
  }
  await cp(
    join(fixtures, "cases/24-added-tokens-beside-tokenizer-json/chat_template.jinja"),
    join(path, "chat_template.jinja"),
  );
  return loadTokenizer(path);
}

async function prepare(
  rows: readonly Row[],
  tokenizer: Tokenizer,
  options: Partial<PrepareOptions>,
): Promise<PreparedDataset> {
  const path = await place();
  const train: { source: string }[] = [];
  // A file holds rows of one kind.
  for (const kind of ["text", "completion"] as const) {
    const lines = rows.filter((row) => row[kind] !== undefined).map((row) => JSON.stringify(row));
    if (lines.length === 0) continue;
    const source = join(path, `${kind}.jsonl`);
    await writeFile(source, lines.join("\n"));
    train.push({ source });
  }
  const dataset = await prepareDataset(
    { train, validationFraction: 0 },
    {
      ...{ tokenizer, vocabSize: tokenizer.vocabSize, maxSequenceLength: 1024, seed: 1 },
      ...{ sequenceLength: 1024, ...options },
    },
  );
  after(() => dataset.close());
  return dataset;
}

const batchOf = ({ train }: PreparedDataset): Batch => {
  const [batch] = evaluationBatches(train.rows, train.rows.numRows);
  assert.ok(batch !== undefined);
  return batch;
};

/** Tokens and targets of each example that a batch holds, in its order: a row, or a segment of one. */
function examplesOf(batch: Batch, rowLength: number): { ids: number[]; targets: number[] }[] {
  const [tokens, targets, { segments }] = [tokensOf(batch), targetsOf(batch), batch.fields];
  const examples: { ids: number[]; targets: number[] }[] = [];
  for (let row = 0; row < batch.numRows; row++) {
    for (let i = row * rowLength; i < (row + 1) * rowLength; i++) {
      const segment = segments === undefined ? 1 : (segments[i] ?? 0);
      if (segment === 0) continue;
      const isFirst = i === row * rowLength || segment !== (segments?.[i - 1] ?? 1);
      if (isFirst) examples.push({ ids: [], targets: [] });
      const example = examples.at(-1);
      example?.ids.push(tokens[i] ?? 0);
      example?.targets.push(targets[i] ?? 0);
    }
  }
  return examples;
}

/** An example as it stands in a batch, cut to a length. */
function wanted(ids: readonly number[], start: number, length: number) {
  const kept = ids.slice(0, length);
  return {
    ids: kept,
    targets: kept.map((_, i) =>
      i + 1 < kept.length && i + 1 >= start ? (kept[i + 1] ?? 0) : ignoredTarget,
    ),
  };
}

const unpadded = (
  examples: readonly { ids: number[]; targets: number[] }[],
  lengths: readonly number[],
) =>
  examples.map(({ ids, targets }, i) => ({
    ids: ids.slice(0, lengths[i]),
    targets: targets.slice(0, lengths[i]),
  }));

test("the tokenizer of bytes is that of the cases", async () => {
  for (const addsBos of [false, true]) {
    const path = join(await place(), "model");
    await writeCaseModel(path, { addsBos });
    const written = JSON.parse(await readFile(join(path, "tokenizer.json"), "utf8")) as Json;
    const ofFixture = {
      ...fixture.bytes,
      ...fixture.variants[addsBos ? "bytes, <s>" : "bytes"]?.changes,
    };
    const withoutPairs = ({ post_processor, ...rest }: Json): unknown => ({
      ...rest,
      single: (post_processor as { single?: unknown } | null)?.single,
    });
    assert.deepEqual(withoutPairs(written), withoutPairs(ofFixture));
  }
});

test("there are 200 rows and more with and without a beginning token", () => {
  for (const name of ["bytes", "bytes, <s>", "both turns beside tokenizer.json"]) {
    assert.ok(Object.keys(fixture.variants[name]?.rows ?? {}).length > 200, name);
  }
});

for (const [name, variant] of Object.entries(fixture.variants)) {
  test(`${name}: texts and completions have the tokens and labels of transformers`, async () => {
    const tokenizer = await tokenizerOf(variant);
    assert.equal(tokenizer.vocabSize, variant.vocab_size);
    for (const [token, id] of Object.entries(variant.added_vocab)) {
      assert.equal(tokenizer.tokenId(token), id, token);
      // The library shows a token that is looked for in normalized text as it is looked for.
      if (variant.changes?.["normalizer"] === undefined) assert.equal(tokenizer.tokenOf(id), token);
    }
    assert.ok(variant.special.every((id) => tokenizer.specialTokens.has(id)));
    assert.equal(tokenizer.eosTokenId, variant.eos_token_id);
    const separator = separators[variant.base];
    assert.equal(tokenizer.documentSeparatorTokenId, separator);

    const inOrder = Object.entries(variant.rows).map(([index, { ids, start }]) => ({
      row: fixture.rows[Number(index)] ?? {},
      start: start ?? 0,
      ids:
        start === undefined && separator !== null && ids.at(-1) !== separator
          ? [...ids, separator]
          : ids,
    }));
    const texts = inOrder.filter(({ row }) => row.text !== undefined);
    // Blanks and what ends or frames texts are no answers, other special tokens may be.
    const { bosTokenId, eosTokenId, padTokenId } = tokenizer;
    const roles = [bosTokenId, eosTokenId, padTokenId, separator, ...tokenizer.endTokenIds];
    const frame = [...tokenizer.specialTokens].flatMap(([id, token]) =>
      roles.includes(id) || ["<|turn|>", "<|turn_end|>"].includes(token) ? [token] : [],
    );
    const isNothing = ({ row, ids, start }: (typeof inOrder)[number]): boolean => {
      const left = frame.reduce((text, token) => text.replaceAll(token, ""), row.completion ?? "");
      const learnt = ids.slice(Math.max(start, 1));
      return left.trim() === "" || learnt.every((id) => tokenizer.endTokenIds.includes(id));
    };
    const answers = inOrder.filter(({ row }) => row.text === undefined);
    const completions = answers.filter((each) => !isNothing(each));
    for (const { row } of answers.filter(isNothing)) {
      await assert.rejects(prepare([row], tokenizer, {}), { code: "E_DATA_NO_ANSWER" });
    }
    const all = [...texts, ...completions];
    assert.ok(texts.length >= 20);
    const rowsOf = (list: typeof all): Row[] => list.map(({ row }) => row);

    // A row each, whole and cut.
    for (const length of [1024, 16]) {
      const fitting = all.filter(({ ids, start }) => start < Math.min(length, ids.length));
      const dataset = await prepare(rowsOf(fitting), tokenizer, {
        ...{ packing: false, sequenceLength: length },
      });
      const lengths = fitting.map(({ ids }) => Math.min(ids.length, length));
      assert.deepEqual(
        unpadded(examplesOf(batchOf(dataset), length), lengths),
        fitting.map(({ ids, start }) => wanted(ids, start, length)),
      );
    }

    // Texts end to end: only what begins a document has the beginning token.
    const wrapped = await prepare(rowsOf(texts), tokenizer, { sequenceLength: 32 });
    assert.equal(wrapped.layout, "wrapped");
    const stream = texts.flatMap(({ ids }) => ids);
    const numTokens = Math.floor(stream.length / 32) * 32;
    const batch = batchOf(wrapped);
    assert.deepEqual([...tokensOf(batch)], stream.slice(0, numTokens));
    assert.deepEqual(
      [...targetsOf(batch)],
      stream
        .slice(0, numTokens)
        .map((_, i) => (i % 32 === 31 ? ignoredTarget : (stream[i + 1] ?? 0))),
    );

    // Completions and texts that share rows.
    if (completions.length === 0) return;
    const packed = await prepare(rowsOf(all), tokenizer, { packing: true });
    assert.equal(packed.layout, "packed");
    const sorted = (list: readonly unknown[]): string[] =>
      list.map((item) => JSON.stringify(item)).sort();
    assert.deepEqual(
      sorted(examplesOf(batchOf(packed), 1024)),
      sorted(all.map(({ ids, start }) => wanted(ids, start, 1024))),
    );
  });
}

test("a chat template's own tokens are one token each, wherever a file names them", async () => {
  const chats = (
    await readFile(
      join(fixtures, "cases/24-added-tokens-beside-tokenizer-json/chats.jsonl"),
      "utf8",
    )
  )
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { messages: { role: string; content: string }[] });
  let numCompared = 0;
  for (const variant of Object.values(fixture.variants)) {
    if (variant.chats.length === 0) continue;
    const tokenizer = await tokenizerOf(variant);
    for (const [i, { messages }] of chats.entries()) {
      const ids = await tokenizer.encode(tokenizer.applyChatTemplate(messages));
      assert.deepEqual([...ids], variant.chats[i]);
      numCompared++;
    }
  }
  assert.ok(numCompared >= 4);
});
