import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { findLoneSurrogate } from "#lib/core/well-formed";
import { BadExamples } from "#lib/data/bad-examples";
import { isBlank, splitLoneDocument } from "#lib/data/documents";
import { readExamples } from "#lib/data/examples";
import { loadTokenizer, type PreparedDataset, prepareDataset, readTexts } from "#lib/data/index";
import { writeCaseModel } from "#tests/support/case-job";
import { classLabels } from "#lib/objectives/class-labels";

const directory = await mkdtemp(join(tmpdir(), "lockstep-texts-"));
after(() => rm(directory, { recursive: true }));
await writeCaseModel(join(directory, "model"));
await writeCaseModel(join(directory, "model-bos"), { addsBos: true });
const tokenizer = await loadTokenizer(join(directory, "model"));
const beginning = await loadTokenizer(join(directory, "model-bos"));

let numFiles = 0;
async function file(extension: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, `${numFiles++}${extension}`);
  await writeFile(path, content);
  return path;
}
const jsonl = (rows: readonly unknown[]): Promise<string> =>
  file(".jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));

async function prepare(
  source: string,
  options: { readonly skipsBadRows?: boolean; readonly addsBos?: boolean } = {},
): Promise<PreparedDataset> {
  const dataset = await prepareDataset(
    {
      ...{ train: [{ source }], validationFraction: 0 },
      onBadExample: options.skipsBadRows === true ? "skip" : "error",
    },
    {
      labelReaderOf: () => classLabels,
      tokenizer: options.addsBos === true ? beginning : tokenizer,
      ...{ vocabSize: 264, sequenceLength: 512, maxSequenceLength: 1024, seed: 1 },
      packing: false,
    },
  );
  after(() => dataset.close());
  return dataset;
}

/** What each row holds, as text, without its separator. */
async function learntTexts(source: string): Promise<string[]> {
  const { train } = await prepare(source);
  return Promise.all(
    Array.from({ length: train.rows.numRows }, async (_, row) => {
      const tokens = new Int32Array(512);
      train.rows.write(row, { tokens, targets: {} });
      const length = train.rows.lengthOf(row);
      assert.equal(tokens[length - 1], 0);
      return tokenizer.decode(tokens.subarray(0, length - 1), { skipSpecialTokens: false });
    }),
  );
}

async function textsOf(source: string): Promise<string[]> {
  const texts: string[] = [];
  for await (const { example } of readExamples({ source }, new BadExamples("error"))) {
    assert.ok(example.kind === "text");
    texts.push(example.text);
  }
  return texts;
}

const failure =
  (code: string, facts: object = {}) =>
  (error: unknown): boolean => {
    assert.ok(isLockstepError(error) && error.code === code, String(error));
    assert.deepEqual({ ...error.details, ...facts }, error.details);
    return true;
  };

const fragments = fc.constantFrom(
  ...[
    "    def f():\n",
    "\tx = 1",
    "\r\n",
    "\n",
    "\r",
    " ",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "a",
    "é",
    "🙂",
  ],
  ...['"', ",", "the ", "\n\n\n", "\t"],
);
const texts = fc
  .array(
    fc.array(fragments, { minLength: 1, maxLength: 12 }).map((list) => list.join("")),
    { minLength: 1, maxLength: 8 },
  )
  .map((list) => list.filter((text) => !isBlank(text)))
  .filter((list) => list.length > 0);

test("every blank and line end of a text is learnt, from each kind of file", async () => {
  await fc.assert(
    fc.asyncProperty(texts, async (list) => {
      const rows = list.map((text) => ({ text }));
      const sources = [
        await jsonl(rows),
        await file(".json", JSON.stringify(rows, null, 1)),
        await file(
          ".csv",
          ["text", ...list.map((text) => `"${text.replaceAll('"', '""')}"`), ""].join("\n"),
        ),
      ];
      for (const source of sources) assert.deepEqual(await learntTexts(source), list);
      const [first = ""] = list;
      // A byte order mark belongs to the file.
      const whole = await file(".txt", `\ufeff${first}`);
      assert.deepEqual(await textsOf(whole), [first]);
    }),
    { numRuns: 40 },
  );
});

test("a lone document is cut in two parts that are the whole text", () => {
  fc.assert(
    fc.property(
      fc.array(fragments, { minLength: 1, maxLength: 60 }).map((list) => list.join("")),
      fc.double({ min: 0.01, max: 0.95, noNaN: true }),
      (text, fraction) => {
        const { train, validation } = splitLoneDocument({ id: "a", text }, { fraction });
        const parts = [...train, ...validation].map((part) => part.text);
        assert.equal(parts.join(""), text);
        assert.equal(train.length, 1);
        if (validation.length > 0) assert.ok(parts.every((part) => !isBlank(part)));
        assert.ok(parts.every((part) => findLoneSurrogate(part) === undefined));
      },
    ),
  );
});

test("blank texts are left out, counted, and the first is named", async () => {
  const source = await jsonl([{ text: "a" }, { text: "" }, { text: " \n\t" }, { text: " b" }]);
  const { blankTexts, rejectedExamples, train } = await prepare(source);
  assert.deepEqual(blankTexts, { count: 2, first: `${source}:2` });
  assert.equal(rejectedExamples, 0);
  assert.equal(train.rows.numRows, 2);
});

test("lines of a file of texts keep their blanks", async () => {
  const source = await file(".txt", "  a \r\n\n \t\nb\t\n");
  const read = [];
  for await (const { text } of readTexts(source, {})) read.push(text);
  assert.deepEqual(read, ["  a ", "b\t"]);
});

test("a text that itself begins with the beginning token is a bad row", async () => {
  const source = await jsonl([{ text: "<s>a" }, { text: "b<s>" }, { text: " <s>c" }]);
  await assert.rejects(
    prepare(source, { addsBos: true }),
    failure("E_CHAT_TEMPLATE_SECOND_BOS", { place: `${source}:1`, token: "<s>" }),
  );
  const { rejectedExamples, train } = await prepare(source, { addsBos: true, skipsBadRows: true });
  assert.deepEqual([rejectedExamples, train.rows.numRows], [1, 2]);
  // Where the tokenizer writes none, it is the text's own.
  assert.deepEqual(await learntTexts(source), ["<s>a", "b<s>", " <s>c"]);
});

const half = "\ud83d";
const chat = (rest: object): object => ({
  messages: [
    { role: "user", content: "a" },
    { role: "assistant", content: "b", ...rest },
  ],
});

test("half of a character is a bad row with its place, in whatever a row holds", async () => {
  const rows: [row: object, where: string][] = [
    [{ text: `ab${half}c` }, '"text"'],
    [{ text: "\ude00" }, '"text"'],
    [{ prompt: half, completion: "b" }, '"prompt"'],
    [{ prompt: "a", completion: `b\ude42${half}` }, '"completion"'],
    [chat({ content: half }), '"messages[1].content"'],
    [
      chat({ tool_calls: [{ function: { name: "f", arguments: { x: [half] } } }] }),
      '"messages[1].tool_calls[0].function.arguments.x[0]"',
    ],
    [
      chat({ tool_calls: [{ function: { name: "f", [half]: 1 } }] }),
      '"messages[1].tool_calls[0].function"',
    ],
    [{ instruction: "a", output: half }, '"messages[1].content"'],
    [{ ...chat({}), tools: JSON.stringify([{ name: half }]) }, '"tools[0].name"'],
    [{ text: "a", label: half }, '"label"'],
  ];
  for (const [row, where] of rows) {
    const source = await jsonl([row]);
    const facts = { place: `${source}:1`, where };
    await assert.rejects(prepare(source), failure("E_DATA_LONE_SURROGATE", facts), where);
  }
  const source = await jsonl([{ text: "a" }, { text: half }, { text: "🙂", other: half }]);
  const { rejectedExamples, listedRejections, train } = await prepare(source, {
    skipsBadRows: true,
  });
  assert.deepEqual([rejectedExamples, train.rows.numRows], [1, 2]);
  assert.match(
    listedRejections[0] ?? "",
    /^E_DATA_LONE_SURROGATE: .*:2: "text" holds U\+D83D alone/,
  );
});

test("bytes of a Parquet file that are not UTF-8 are bad rows, the others are read", async () => {
  const bytes = await readFile(join(packageRoot, "tests/fixtures/parquet/none.parquet"));
  for (let at = bytes.indexOf("question 4 "); at >= 0; at = bytes.indexOf("question 4 ", at + 1)) {
    bytes[at + "question 4 ".length] = 0xff;
  }
  const source = await file(".parquet", bytes);
  const bad = new BadExamples("skip");
  let numRead = 0;
  for await (const { place } of readExamples({ source }, bad, { readLabel: classLabels.read })) {
    assert.ok(!place.endsWith("row 5"));
    numRead++;
  }
  assert.equal(numRead, 6);
  assert.match(
    bad.listed.join(),
    /row 5: "messages\[0\]\.content" holds U\+DCFF alone at character 12/,
  );
});

test("no text with half of a character reaches the tokenizer's library", async () => {
  const spans = [{ start: 0, end: 1 }];
  for (const encode of [
    () => tokenizer.encode(`a${half}`),
    () => tokenizer.encodeMany(["a", half]),
    () => tokenizer.encodeMarked([{ text: half, spans }]),
    () => tokenizer.encodePair("a", half),
  ]) {
    await assert.rejects(encode(), failure("E_DATA_LONE_SURROGATE", { code: "U+D83D" }));
  }
  const source = await jsonl([{ text: "a" }, { text: half }]);
  await assert.rejects(
    async () => {
      for await (const { text } of readTexts(source, {})) assert.equal(text, "a");
    },
    failure("E_DATA_LONE_SURROGATE", { place: `${source}:2` }),
  );
});
