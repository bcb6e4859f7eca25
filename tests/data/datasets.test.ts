import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { findJsonError } from "#lib/data/datasets/json-error";
import { maxRowBytes } from "#lib/data/datasets/jsonl";
import { splitLoneDocument } from "#lib/data/documents";
import { maxDocumentBytes } from "#lib/data/files";
import {
  cleanText,
  type Document,
  loadTextDataset,
  loadTokenizer,
  prepareBlocks,
  readDocuments,
  splitDocuments,
} from "#lib/data/index";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-datasets-"));
});
after(() => rm(directory, { recursive: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
}

/** Asserts the code and some facts of an error of the catalogue. */
function failure(code: string, facts: object = {}): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isLockstepError(error), String(error));
    assert.equal(error.code, code);
    assert.deepEqual({ ...error.details, ...facts }, error.details);
    return true;
  };
}

test("the State of the Union data set holds 233 addresses, one document each", async () => {
  const documents = await readDocuments("sotu");
  assert.equal(documents.length, 233);
  assert.equal(new Set(documents.map(({ id }) => id)).size, 233);
  assert.equal(documents[0]?.id, "1790_george_washington_n");
  assert.equal(documents.at(-1)?.id, "2021_joseph_r_biden_d");
  assert.match(documents[0]?.text ?? "", /^Fellow-Citizens of the Senate and House/);
  const bytes = documents.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
  assert.ok(bytes > 10_750_000 && bytes <= 10_761_413, `${bytes} bytes`);
});

test("speeches are split by a seed, without a speech on both sides", async () => {
  const split = (seed: number) =>
    loadTextDataset({ train: ["sotu"], validationFraction: 0.1 }, { seed });
  const first = await split(42);
  assert.equal(first.validation.length, 23);
  assert.equal(first.train.length, 210);
  const trained = new Set(first.train.map(({ id }) => id));
  assert.ok(first.validation.every(({ id }) => !trained.has(id)));
  assert.deepEqual(await split(42), first);
  assert.notDeepEqual((await split(43)).validation, first.validation);
});

test("a split covers all documents, keeps copies together and never empties the training side", () => {
  const texts = fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(
      texts,
      fc.double({ min: 0, max: 0.99, noNaN: true }),
      fc.nat(),
      (numbers, fraction, seed) => {
        const documents = numbers.map((n, i): Document => ({ id: String(i), text: `text ${n}` }));
        const { train, validation } = splitDocuments(documents, { fraction, seed });
        const inOrder = (side: readonly Document[]): number[] => side.map(({ id }) => Number(id));
        assert.deepEqual(
          [...inOrder(train), ...inOrder(validation)].sort((a, b) => a - b),
          documents.map((_, i) => i),
        );
        for (const side of [inOrder(train), inOrder(validation)]) {
          assert.deepEqual(
            side,
            [...side].sort((a, b) => a - b),
          );
        }
        const trained = new Set(train.map(({ text }) => text));
        assert.ok(validation.every(({ text }) => !trained.has(text)));
        assert.ok(train.length > 0);
        if (fraction > 0 && new Set(numbers).size > 1) assert.ok(validation.length > 0);
        if (fraction === 0) assert.equal(validation.length, 0);
      },
    ),
    { numRuns: 300 },
  );
});

test("a lone document is cut in two at a line end", () => {
  const text = Array.from({ length: 100 }, (_, i) => `line ${i}`).join("\n");
  const { train, validation } = splitLoneDocument({ id: "a", text }, { fraction: 0.1 });
  assert.equal(`${train[0]?.text}\n${validation[0]?.text}`, text);
  const share = (validation[0]?.text.length ?? 0) / text.length;
  assert.ok(share > 0.09 && share < 0.12, `share ${share}`);
  assert.equal(splitLoneDocument({ id: "a", text }, { fraction: 0 }).validation.length, 0);
});

test("line ends become one form and blanks around a text go", () => {
  assert.equal(cleanText("\r\n  a\r\nb\rc\n\nd \t\n"), "a\nb\nc\n\nd");
});

test("text and JSON Lines are read from files, directories and patterns", async () => {
  const folder = join(directory, "mixed");
  await mkdir(folder);
  await writeFile(join(folder, "b.txt"), "\uFEFFsecond\r\n");
  await writeFile(join(folder, "a.txt"), "first");
  await writeFile(join(folder, "blank.txt"), " \n");
  await writeFile(join(folder, "notes.md"), "not data");
  const rows =
    '{"text":"one"}\r\n\n{"text":"zwei \\u00fc \u00fc","extra":1}\n{"text":""}\n{"text":"last"}';
  await writeFile(join(folder, "c.jsonl"), rows);
  const texts = async (source: string, textField?: string): Promise<string[]> =>
    (await readDocuments(source, textField === undefined ? {} : { textField })).map(
      ({ text }) => text,
    );
  assert.deepEqual(await texts(join(folder, "b.txt")), ["second"]);
  assert.deepEqual(await texts(join(folder, "*.txt")), ["first", "second"]);
  assert.deepEqual(await texts(folder), ["first", "second", "one", "zwei ü ü", "last"]);
  const [, , , row] = await readDocuments(folder);
  assert.equal(row?.id, `${join(folder, "c.jsonl")}:3`);
  assert.deepEqual(await texts(await file("other.jsonl", '{"body":"x"}\n'), "body"), ["x"]);
});

test("rows that span the chunks of the stream arrive whole", async () => {
  const lengths = [10, 1_500_000, 3, 2 ** 20 - 12, 700_000];
  const rows = lengths.map((length, i) => JSON.stringify({ text: String(i).repeat(length) }));
  const documents = await readDocuments(await file("long.jsonl", rows.join("\n")));
  assert.deepEqual(
    documents.map(({ text }) => text),
    lengths.map((length, i) => String(i).repeat(length)),
  );
});

test("a wrong row is named by file, line and column", async () => {
  const good = '{"text":"fine"}\n\n';
  const cases = [
    ['{"text": fine}', 10],
    ['{"text":"a"', 12],
    ['{"text":"a",}', 13],
    ['{text:"a"}', 2],
    ['{"text":"a\\x"}', 11],
    ['{"text":"a"} {"text":"b"}', 14],
    ['{"a":[1,{"b":[]},01]}', 19],
    ["{'text':1}", 2],
    ["nul", 1],
  ] as const;
  for (const [json, column] of cases) {
    const path = await file("wrong.jsonl", `${good}${json}\n${good}`);
    await assert.rejects(
      readDocuments(path),
      failure("E_DATA_INVALID_JSON", { file: path, line: 3, column }),
      json,
    );
  }
});

test("the position of a JSON error is the first character without a valid continuation", () => {
  // Oracle: what stands before it can be completed to valid JSON, and with it no longer.
  const middles = ["", "0", '"', '":0', ":0", '"":0'];
  const completes = (prefix: string): boolean => {
    const closers: string[] = [];
    for (const character of prefix.replace(/"[^"]*("|$)/g, "")) {
      if (character === "{") closers.unshift("}");
      else if (character === "[") closers.unshift("]");
      else if (character === "}" || character === "]") closers.shift();
    }
    return middles.some((middle) => {
      try {
        JSON.parse(prefix + middle + closers.join(""));
        return true;
      } catch {
        return false;
      }
    });
  };
  const parts = fc.constantFrom("[", "]", "{", "}", ",", ":", '"a"', '"', '{"a":', "1", " ");
  let numChecked = 0;
  fc.assert(
    fc.property(fc.array(parts, { maxLength: 12 }), (list) => {
      const text = list.join("");
      try {
        JSON.parse(text);
        return;
      } catch {
        numChecked++;
      }
      const { index } = findJsonError(text);
      assert.ok(completes(text.slice(0, index)), text);
      if (index < text.length) assert.ok(!completes(text.slice(0, index + 1)), text);
    }),
    { numRuns: 3000 },
  );
  assert.ok(numChecked > 500);
  assert.equal(findJsonError("[".repeat(200_000)).index, 200_000);
  assert.equal(findJsonError(`"${"a\\n".repeat(1_000_000)}`).index, 3_000_001);
});

test("rows without the text field, or with another type there, are refused", async () => {
  const cases = [
    ['{"body":"a","n":1}', /it has body, n/],
    ['{"text":3}', /of type number/],
    ['{"text":null}', /that field is null/],
    ["[1]", /it is an array/],
    ['"a"', /it is of type string/],
    ["{}", /no fields/],
  ] as const;
  for (const [json, words] of cases) {
    const path = await file("row.jsonl", `{"text":"a"}\n${json}`);
    await assert.rejects(readDocuments(path), (error) => {
      failure("E_DATA_ROW", { file: path, line: 2, field: "text" })(error);
      return words.test(String(error));
    });
  }
});

test("invalid UTF-8 is named by its offset in the file", async () => {
  const prefix = Buffer.from(`é🙂 ${"x".repeat(5000)}é`);
  const path = await file("latin1.txt", Buffer.concat([prefix, Buffer.of(0xe9, 0x20, 0x61)]));
  await assert.rejects(
    readDocuments(path),
    failure("E_DATA_INVALID_UTF8", { byteOffset: prefix.length }),
  );
  const cut = await file("cut.txt", Buffer.concat([prefix, Buffer.of(0xf0, 0x9f)]));
  await assert.rejects(
    readDocuments(cut),
    failure("E_DATA_INVALID_UTF8", { byteOffset: prefix.length }),
  );
  const row = Buffer.from('{"text":"é"}\n{"text":"');
  const rows = await file("latin1.jsonl", Buffer.concat([row, Buffer.from([0xff, 0x22, 0x7d])]));
  await assert.rejects(
    readDocuments(rows),
    failure("E_DATA_INVALID_UTF8", { byteOffset: row.length }),
  );
});

test("files and rows over the limits are refused, a file before it is read", async () => {
  // Files with a hole take no room on the disk.
  const large = await file("large.txt", "");
  await truncate(large, maxDocumentBytes + 1);
  const sizes = { sizeBytes: maxDocumentBytes + 1, limitBytes: maxDocumentBytes };
  await assert.rejects(readDocuments(large), failure("E_DATA_TOO_LARGE", sizes));
  const endless = await file("endless.jsonl", "");
  await truncate(endless, 2 * maxRowBytes);
  const row = { what: "row", limitBytes: maxRowBytes };
  await assert.rejects(readDocuments(endless), failure("E_DATA_TOO_LARGE", row));
});

test("limits on documents keep some of every part", async () => {
  const limits = { maxTrainDocuments: 5, maxValidationDocuments: 2 };
  const { train, validation } = await loadTextDataset({ train: ["sotu"], ...limits }, { seed: 1 });
  assert.equal(train.length, 5);
  assert.equal(validation.length, 2);
  const years = train.map(({ id }) => Number(id.slice(0, 4)));
  for (let i = 1; i < years.length; i++) {
    const gap = (years[i] ?? 0) - (years[i - 1] ?? 0);
    assert.ok(gap > 35 && gap < 55, `years ${years.join(", ")}`);
  }
});

test("unknown names, formats, empty sets and bad fractions are errors of the catalogue", async () => {
  const load = (train: string, rest: object = {}) =>
    loadTextDataset({ train: [train], ...rest }, { seed: 0 });
  await assert.rejects(load("stou"), failure("E_DATASET_UNKNOWN", { dataset: "stou" }));
  await assert.rejects(load(join(directory, "*.none")), failure("E_DATASET_UNKNOWN"));
  await assert.rejects(load(await file("a.parquet", "x")), failure("E_DATASET_FORMAT"));
  const blank = await file("blank.txt", "\n \n");
  await assert.rejects(load(blank), failure("E_DATASET_EMPTY", { split: "train" }));
  const validation = { validation: [blank] };
  await assert.rejects(
    load("sotu", validation),
    failure("E_DATASET_EMPTY", { split: "validation" }),
  );
  for (const validationFraction of [1, -0.1, Number.NaN]) {
    await assert.rejects(load("sotu", { validationFraction }), failure("E_DATASET_SPLIT"));
  }
});

test("prepared blocks report what became of the text", async () => {
  const tokenizer = await loadTokenizer(join(packageRoot, "tests/fixtures/tok"));
  const documents = [
    { id: "a", text: "the quick brown fox" },
    { id: "b", text: "hello world é, hello world, xyz xyz" },
  ];
  const options = { tokenizer, sequenceLength: 8, vocabSize: 277, maxSequenceLength: 64 };
  const shares: number[] = [];
  const { blocks, report } = await prepareBlocks(documents, {
    ...options,
    onProgress: (share) => shares.push(share),
  });
  const stream = [
    ...(await tokenizer.encode("the quick brown fox")),
    0,
    ...(await tokenizer.encode("hello world é, hello world, xyz xyz")),
    0,
  ];
  assert.deepEqual([...blocks.tokens], stream.slice(0, blocks.tokens.length));
  assert.equal(report.numDocuments, 2);
  assert.equal(report.numBytes, 19 + 36);
  assert.equal(report.numTokens, stream.length);
  assert.equal(report.numBlocks, Math.floor(stream.length / 8));
  assert.equal(report.droppedTokens, stream.length % 8);
  assert.equal(report.supervisedTokens, 7 * report.numBlocks);
  assert.ok(report.tokenizerBytesPerSecond > 0);
  assert.equal(shares.at(-1), 1);

  assert.equal(report.numBlocks, 4);
  const limited = await prepareBlocks(documents, { ...options, maxBlocks: 2 });
  assert.deepEqual([...limited.blocks.tokens], [...stream.slice(0, 8), ...stream.slice(16, 24)]);
  assert.equal(limited.report.droppedTokens, stream.length - 16);
  await assert.rejects(
    prepareBlocks(documents, { ...options, vocabSize: 100 }),
    failure("E_TOKEN_OUT_OF_VOCABULARY", { document: "a", vocabSize: 100 }),
  );
  await assert.rejects(
    prepareBlocks(documents, { ...options, sequenceLength: 65 }),
    failure("E_SEQUENCE_LENGTH"),
  );
  await assert.rejects(
    prepareBlocks(documents, { ...options, sequenceLength: 64 }),
    failure("E_DATASET_TOO_SMALL", { split: "train", numTokens: stream.length, neededBlocks: 1 }),
  );
});
