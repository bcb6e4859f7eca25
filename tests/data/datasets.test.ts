import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { BadExamples } from "#lib/data/bad-examples";
import { findJsonError } from "#lib/data/datasets/json-error";
import { type Document, splitContents, splitLoneDocument } from "#lib/data/documents";
import { maxDocumentBytes } from "#lib/data/files";
import {
  type DataSource,
  type DatasetSpec,
  loadTokenizer,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
  readExamples,
  type TrainingRows,
} from "#lib/data/index";
import { maxExampleBytes } from "#lib/data/readers/raw-example";

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

async function readDocuments(
  source: string,
  columns: DataSource["columns"] = {},
): Promise<Document[]> {
  const documents: Document[] = [];
  for await (const { place, example } of readExamples(
    { source, columns },
    new BadExamples("error"),
  )) {
    if (example.kind !== "text") throw new Error(`${place} is no text`);
    documents.push({ id: place, text: example.text });
  }
  return documents;
}

const tokenizer = await loadTokenizer(join(packageRoot, "tests/fixtures/tok"));
const defaults = { tokenizer, sequenceLength: 8, vocabSize: 277, maxSequenceLength: 64, seed: 0 };

async function prepare(
  spec: DatasetSpec,
  options: Partial<PrepareOptions> = {},
): Promise<PreparedDataset> {
  const dataset = await prepareDataset(spec, { ...defaults, ...options });
  after(() => dataset.close());
  return dataset;
}

function tokensOf(rows: TrainingRows): number[][] {
  return Array.from({ length: rows.numRows }, (_, row) => {
    const tokens = new Int32Array(rows.sequenceLength);
    rows.write(row, { tokens, targets: {} });
    return [...tokens];
  });
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
  const split = async (seed: number) => {
    const spec = { train: [{ source: "sotu" }], validationFraction: 0.1 };
    const { train, validation } = await prepare(spec, {
      ...{ seed, packing: false },
      ...{ sequenceLength: 4096, maxSequenceLength: 4096 },
    });
    return { train: tokensOf(train.rows), validation: tokensOf((validation ?? train).rows) };
  };
  const first = await split(42);
  assert.equal(first.validation.length, 23);
  assert.equal(first.train.length, 210);
  const trained = new Set(first.train.map(String));
  assert.ok(first.validation.every((tokens) => !trained.has(String(tokens))));
  assert.deepEqual(await split(42), first);
  assert.notDeepEqual((await split(43)).validation, first.validation);
});

test("the text of a run is laid out as the first version laid it out", async () => {
  // Digests of the version that held documents and tokens in memory.
  const spec = { train: [{ source: "sotu" }], validationFraction: 0.1 };
  const limits = { maxTrainRows: 777, maxValidationRows: 777 };
  const whole = { ...defaults, sequenceLength: 256, maxSequenceLength: 256, seed: 42 };
  const { train, validation } = await prepare(spec, { ...whole, ...limits });
  const digest = (rows: TrainingRows | undefined): string => {
    const hash = createHash("sha256");
    for (const tokens of rows === undefined ? [] : tokensOf(rows)) {
      hash.update(Int32Array.from(tokens));
    }
    return hash.digest("hex").slice(0, 16);
  };
  assert.equal(digest(train.rows), "c24b71d7f5ca9d5f");
  assert.equal(digest(validation?.rows), "df9f0b54f8b3225e");
  assert.equal(train.report.numTokens, 8_984_175);
  assert.equal(train.report.droppedTokens, 8_785_263);
});

test("a split takes its share and never empties the training side", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 30 }),
      fc.double({ min: 0, max: 0.99, noNaN: true }),
      fc.nat(),
      (numContents, fraction, seed) => {
        const validates = splitContents(numContents, { fraction, seed });
        assert.ok([...validates].every((i) => i >= 0 && i < numContents));
        assert.ok(validates.size < numContents);
        if (fraction > 0 && numContents > 1) assert.ok(validates.size > 0);
        if (fraction === 0) assert.equal(validates.size, 0);
      },
    ),
    { numRuns: 300 },
  );
});

test("a split of 1 and more is a number of examples", () => {
  assert.equal(splitContents(30, { fraction: 1, seed: 1 }).size, 1);
  assert.equal(splitContents(30, { fraction: 7, seed: 1 }).size, 7);
  assert.equal(splitContents(5, { fraction: 500, seed: 1 }).size, 4);
});

test("copies of a text are on one side", async () => {
  const texts = Array.from({ length: 40 }, (_, i) => `text ${i % 7}`);
  const rows = texts.map((text) => JSON.stringify({ text })).join("\n");
  const source = await file("copies.jsonl", rows);
  for (let seed = 0; seed < 5; seed++) {
    const spec = { train: [{ source }], validationFraction: 0.3 };
    const { train, validation } = await prepare(spec, { seed, packing: false });
    const trained = new Set(tokensOf(train.rows).map(String));
    const validated = tokensOf(validation?.rows ?? train.rows).map(String);
    assert.ok(validated.length >= 10 && validated.every((tokens) => !trained.has(tokens)));
    assert.equal(trained.size + new Set(validated).size, 7);
    assert.equal(train.report.numExamples + validated.length, 40);
  }
});

test("a lone document is cut in two at a line end", () => {
  const text = Array.from({ length: 100 }, (_, i) => `line ${i}`).join("\n");
  const { train, validation } = splitLoneDocument({ id: "a", text }, { fraction: 0.1 });
  assert.equal(`${train[0]?.text}${validation[0]?.text}`, text);
  assert.ok(train[0]?.text.endsWith("\n"));
  const share = (validation[0]?.text.length ?? 0) / text.length;
  assert.ok(share > 0.09 && share < 0.12, `share ${share}`);
  assert.equal(splitLoneDocument({ id: "a", text }, { fraction: 0 }).validation.length, 0);
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
    (await readDocuments(source, textField === undefined ? {} : { text: textField })).map(
      ({ text }) => text,
    );
  assert.deepEqual(await texts(join(folder, "b.txt")), ["second\r\n"]);
  assert.deepEqual(await texts(join(folder, "*.txt")), ["first", "second\r\n"]);
  assert.deepEqual(await texts(folder), ["first", "second\r\n", "one", "zwei ü ü", "last"]);
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
    ['{"text":3}', /"text" is not text/],
    ['{"text":null}', /"text" is null/],
    ["[1]", /it is an array/],
    ['"a"', /it is of type string/],
    ["{}", /no fields/],
  ] as const;
  for (const [json, words] of cases) {
    const path = await file("row.jsonl", `{"text":"a"}\n${json}`);
    await assert.rejects(readDocuments(path), (error) => {
      failure("E_DATA_ROW_FORMAT", { place: `${path}:2` })(error);
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
  await truncate(endless, 2 * maxExampleBytes);
  const row = { what: "row of line 1", limitBytes: maxExampleBytes };
  await assert.rejects(readDocuments(endless), failure("E_DATA_TOO_LARGE", row));
});

test("unknown names, formats, empty sets and bad fractions are errors of the catalogue", async () => {
  const load = (source: string, rest: object = {}) => prepare({ train: [{ source }], ...rest });
  await assert.rejects(load("stou"), failure("E_DATASET_UNKNOWN", { dataset: "stou" }));
  await assert.rejects(load(join(directory, "*.none")), failure("E_DATASET_UNKNOWN"));
  await assert.rejects(load(await file("a.docx", "x")), failure("E_DATASET_FORMAT"));
  const blank = await file("blank.txt", "\n \n");
  await assert.rejects(load(blank), failure("E_DATASET_EMPTY", { split: "train" }));
  await assert.rejects(
    load(await file("some.txt", "some text"), { validation: [{ source: blank }] }),
    failure("E_DATASET_EMPTY", { split: "validation" }),
  );
  for (const validationFraction of [1.5, -0.1, Number.NaN]) {
    await assert.rejects(load("sotu", { validationFraction }), failure("E_DATASET_SPLIT"));
  }
});

test("prepared rows report what became of the text", async () => {
  const texts = ["the quick brown fox", "hello world é, hello world, xyz xyz"];
  const source = await file("two.jsonl", texts.map((text) => JSON.stringify({ text })).join("\n"));
  const spec = { train: [{ source }], validationFraction: 0 };
  const numCharacters: number[] = [];
  const whole = await prepare(spec, { onProgress: (done) => numCharacters.push(done) });
  const encoded = await tokenizer.encodeMany(texts);
  const stream = encoded.flatMap((ids) => [...ids, 0]);
  const numInRows = Math.floor(stream.length / 8) * 8;
  assert.deepEqual(tokensOf(whole.train.rows).flat(), stream.slice(0, numInRows));
  assert.deepEqual(whole.train.report, {
    numExamples: 2,
    numTokens: stream.length,
    numRows: Math.floor(stream.length / 8),
    rowTokens: 32,
    droppedTokens: stream.length % 8,
    supervisedTokens: 7 * 4,
    truncatedExamples: 0,
    truncatedTokens: 0,
  });
  assert.equal(whole.layout, "wrapped");
  assert.equal(whole.numBytes, 19 + 36);
  assert.ok(whole.tokenizerSeconds > 0);
  assert.equal(numCharacters.at(-1), 19 + 35);

  const limited = await prepare(spec, { maxTrainRows: 2 });
  assert.deepEqual(tokensOf(limited.train.rows).flat(), [
    ...stream.slice(0, 8),
    ...stream.slice(16, 24),
  ]);
  assert.equal(limited.train.report.droppedTokens, stream.length - 16);
  await assert.rejects(
    prepare(spec, { vocabSize: 100 }),
    failure("E_TOKEN_OUT_OF_VOCABULARY", { document: `${source}:1`, vocabSize: 100 }),
  );
  await assert.rejects(prepare(spec, { sequenceLength: 65 }), failure("E_SEQUENCE_LENGTH"));
  // Less text than a row holds makes a short one.
  const short = await prepare(spec, { sequenceLength: 64 });
  assert.deepEqual(tokensOf(short.train.rows), [
    [...stream, ...Array<number>(64 - stream.length).fill(0)],
  ]);
  assert.equal(short.train.report.supervisedTokens, stream.length - 1);
  assert.equal(short.train.report.droppedTokens, 0);
});
