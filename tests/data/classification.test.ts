import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import {
  type DatasetSpec,
  loadTokenizer,
  type PreparedDataset,
  type PrepareOptions,
  prepareDataset,
} from "#lib/data/index";
import { ClassTable, classLabels } from "#lib/objectives/class-labels";
import { gatherBatch } from "#lib/data/rows";
import { labelsOf, tokensOf } from "#tests/support/batches";

const directory = await mkdtemp(join(tmpdir(), "lockstep-classification-"));
after(() => rm(directory, { recursive: true }));
const tokenizer = await loadTokenizer(join(packageRoot, "tests/fixtures/tokenizers/wordpiece"));

let numFiles = 0;
async function file(extension: string, content: string): Promise<string> {
  const path = join(directory, `${numFiles++}${extension}`);
  await writeFile(path, content);
  return path;
}
const jsonl = (rows: readonly unknown[]): Promise<string> =>
  file(".jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));

async function prepare(
  source: string,
  spec: Partial<DatasetSpec> = {},
  options: Partial<PrepareOptions> = {},
): Promise<PreparedDataset> {
  const dataset = await prepareDataset(
    { train: [{ source }], validationFraction: 0, ...spec },
    {
      ...{ tokenizer, sequenceLength: 16, vocabSize: tokenizer.vocabSize, maxSequenceLength: 64 },
      seed: 1,
      labelReaderOf: () => classLabels,
      ...options,
    },
  );
  after(() => dataset.close());
  return dataset;
}

function failure(code: string, facts: object = {}): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isLockstepError(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.deepEqual({ ...error.details, ...facts }, error.details);
    return true;
  };
}

const classesOf = ({ train: { rows } }: PreparedDataset): number[] =>
  Array.from(
    { length: rows.numRows },
    (_, row) => labelsOf(gatherBatch(rows, [row], 1))[0] ?? Number.NaN,
  );

test("names are numbered in sorted order, whole numbers number themselves, in tables too", async () => {
  const rows = ["sport", "art", "sport", "news"].map((label) => ({ text: "the", label }));
  const named = await prepare(await jsonl(rows));
  assert.deepEqual(named.classes?.names, ["art", "news", "sport"]);
  assert.deepEqual(classesOf(named), [2, 0, 2, 1]);
  const numbered = await prepare(
    await jsonl([1, 0, 2, 1].map((label) => ({ sentence1: "the", sentence2: "of", label }))),
  );
  assert.deepEqual(numbered.classes?.names, ["LABEL_0", "LABEL_1", "LABEL_2"]);
  assert.deepEqual(classesOf(numbered), [1, 0, 2, 1]);
  const table = await prepare(await file(".csv", 'sentence,label\n"a, b",1\nc,0\n'));
  assert.deepEqual(table.classes?.names, ["LABEL_0", "LABEL_1"]);
  assert.deepEqual(classesOf(table), [1, 0]);
});

test("the same labels as JSON and in a table are the same classes", async () => {
  const cases: [values: unknown[], names: string[], classes: number[]][] = [
    [
      [5, 1, 3, 2, 4],
      ["1", "2", "3", "4", "5"],
      [4, 0, 2, 1, 3],
    ],
    [
      [1, -1, 0],
      ["-1", "0", "1"],
      [2, 0, 1],
    ],
    [
      [10, 9, 10],
      ["9", "10"],
      [1, 0, 1],
    ],
    [
      ["1.0", "0.0", "1"],
      ["LABEL_0", "LABEL_1"],
      [1, 0, 1],
    ],
    [
      [true, false],
      ["false", "true"],
      [1, 0],
    ],
    [
      ["1 ", "0", " 1"],
      ["LABEL_0", "LABEL_1"],
      [1, 0, 1],
    ],
    [
      ["007", "008"],
      ["007", "008"],
      [0, 1],
    ],
    [
      ["v1", "1.0", "2.0"],
      ["1.0", "2.0", "v1"],
      [2, 0, 1],
    ],
    [
      ["b", "a "],
      ["a", "b"],
      [1, 0],
    ],
  ];
  for (const [values, names, classes] of cases) {
    const json = await prepare(await jsonl(values.map((label) => ({ text: "the", label }))));
    const lines = values.map((label) => `the,${String(label)}\n`).join("");
    const table = await prepare(await file(".csv", `text,label\n${lines}`));
    for (const dataset of [json, table]) {
      assert.deepEqual(dataset.classes?.names, names);
      assert.deepEqual(classesOf(dataset), classes);
    }
  }
  // Python writes True where JSON has true.
  const python = await prepare(await file(".csv", "text,label\nthe,True\nof,False\n"));
  assert.deepEqual(python.classes?.names, ["false", "true"]);
});

test("labels of a model's own classes are all names or all places", async () => {
  const known = { knownLabels: ["1", "2", "3"] };
  const rows = (labels: readonly unknown[]) =>
    jsonl(labels.map((label) => ({ text: "the", label })));
  const named = await prepare(await rows([3, 1]), {}, known);
  assert.deepEqual(named.classes?.names, known.knownLabels);
  assert.deepEqual(classesOf(named), [2, 0]);
  // 1 is not to be the name of one row and the place of another.
  const other = await prepare(await rows([0, 1]), {}, known);
  assert.deepEqual(other.classes?.names, ["LABEL_0", "LABEL_1"]);
  assert.deepEqual(classesOf(other), [0, 1]);
});

test("labels keep the numbers of a model that knows them all", async () => {
  const known = { knownLabels: ["sport", "news", "art"] };
  const rows = ["art", "sport"].map((label) => ({ text: "the", label }));
  const named = await prepare(await jsonl(rows), {}, known);
  assert.deepEqual(named.classes?.names, known.knownLabels);
  assert.deepEqual(classesOf(named), [2, 0]);
  const numbered = await prepare(
    await jsonl([2, 1].map((label) => ({ text: "the", label }))),
    {},
    known,
  );
  assert.deepEqual(numbered.classes?.names, known.knownLabels);
  assert.deepEqual(classesOf(numbered), [2, 1]);
  const other = await prepare(await jsonl([...rows, { text: "of", label: "film" }]), {}, known);
  assert.deepEqual(other.classes?.names, ["art", "film", "sport"]);
});

test("rows are as long as the longest of both sides needs", async () => {
  const row = (length: number, label: string) => ({ text: "the ".repeat(length), label });
  const [train, validation] = await Promise.all([
    jsonl([row(1, "a"), row(2, "b")]),
    jsonl([row(3, "a"), row(9, "b")]),
  ]);
  const both = { validation: [{ source: validation }] };
  const lengths = async (...args: Parameters<typeof prepare>): Promise<unknown[]> => {
    const { train: left, validation: right } = await prepare(...args);
    return [left.rows.sequenceLength, right?.rows.sequenceLength];
  };
  // [CLS] and [SEP] stand around the words.
  assert.deepEqual(await lengths(train), [8, undefined]);
  assert.deepEqual(await lengths(train, both), [16, 16]);
  assert.deepEqual(await lengths(train, both, { sequenceLength: 10 }), [10, 10]);
});

test("rows with a label and rows without one do not mix", async () => {
  const mixed = [{ text: "the", label: "a" }, { text: "of" }, { text: "to", label: "b" }];
  const [first, second] = await Promise.all([jsonl(mixed.slice(0, 1)), jsonl(mixed.slice(1, 2))]);
  const train = [{ source: first }, { source: second }];
  await assert.rejects(prepare("", { train }), failure("E_DATA_ROW_FORMAT"));
});

test("batches hold tokens, token types, segments and labels; the rest is padding", async () => {
  const rows = [
    { sentence1: "the state", sentence2: "of the union", label: "b" },
    { sentence1: "word ".repeat(30), sentence2: "short", label: "a" },
  ];
  const options = { usesTokenTypes: true, paddingTokenId: 7 };
  const { train } = await prepare(await jsonl(rows), {}, options);
  const batch = gatherBatch(train.rows, [1, 0], 3);
  const pairs = await Promise.all(
    [rows[1], rows[0]].map((row) =>
      tokenizer.encodePair(row?.sentence1 ?? "", row?.sentence2 ?? "", 16),
    ),
  );
  assert.equal(pairs[0]?.ids.length, 16);
  assert.equal(train.report.truncatedExamples, 1);
  assert.equal(train.report.truncatedTokens, pairs[0]?.truncatedTokens);
  assert.deepEqual([...labelsOf(batch)], [0, 1, -100]);
  const expected = (of: (pair: (typeof pairs)[number]) => Int32Array, padding = 0): number[] => [
    ...pairs.flatMap((pair) => [...of(pair), ...Array(16 - of(pair).length).fill(padding)]),
    ...Array(16).fill(padding),
  ];
  assert.deepEqual(
    [...tokensOf(batch)],
    expected(({ ids }) => ids, 7),
  );
  assert.deepEqual(
    [...(batch.fields["tokenTypes"] ?? [])],
    expected(({ typeIds }) => typeIds),
  );
  assert.deepEqual(
    [...(batch.fields["segments"] ?? [])],
    expected(({ ids }) => ids.map(() => 1)),
  );
  assert.deepEqual(
    [...(batch.fields["positions"] ?? [])],
    expected(({ ids }) => ids.map((_, i) => i)),
  );
  assert.equal(
    train.rows.numTokens,
    pairs.reduce((sum, { ids }) => sum + ids.length, 0),
  );
});

test("classes that are called LABEL_ and something are found by their whole name", () => {
  const table = new ClassTable();
  const [x, y] = ["LABEL_x", "LABEL_y"].map((label) => table.numberOf(label, "train"));
  const shortX = table.numberOf("x", "validation");
  const classes = table.namesOf([x as number, y as number], [], 2);
  assert.deepEqual(classes.names, ["LABEL_x", "LABEL_y"]);
  assert.equal(classes.classOf[shortX], 0);
  const sorted = new ClassTable();
  const all = Array.from({ length: 11 }, (_, i) => sorted.numberOf(`LABEL_${i}`, "train"));
  const two = sorted.numberOf("2", "validation");
  const { names, classOf } = sorted.namesOf(all, [], 2);
  assert.equal(names[classOf[two] as number], "LABEL_2");
});

test("a label that training never saw is an error, or a row left out", async () => {
  const source = await jsonl([
    { text: "the", label: "yes" },
    { text: "of", label: "no" },
  ]);
  const other = await jsonl([
    { text: "and", label: "yes" },
    { text: "to", label: "maybe" },
    { text: "in", label: "no" },
  ]);
  const validation = [{ source: other }];
  await assert.rejects(
    prepare(source, { validation }),
    failure("E_LABEL_UNSEEN", { place: `${other}:2`, label: "maybe", known: ["no", "yes"] }),
  );
  const skipped = await prepare(source, { validation, onBadExample: "skip" });
  assert.equal(skipped.validation?.rows.numRows, 2);
  assert.equal(skipped.rejectedExamples, 1);
  assert.match(skipped.listedRejections[0] ?? "", /E_LABEL_UNSEEN.*"maybe"/);
});

test("labels that are no classes are refused", async () => {
  const refused = (labels: readonly unknown[], code: string) =>
    jsonl(labels.map((label) => ({ text: "the", label }))).then((path) =>
      assert.rejects(prepare(path), failure(code)),
    );
  await refused([0.5, 1], "E_LABELS_INVALID");
  await refused(["0.5", "1"], "E_LABELS_INVALID");
  await refused(["01", "1"], "E_LABELS_INVALID");
  await refused([2 ** 53, 2 ** 53 + 2], "E_DATA_ROW_FORMAT");
  await refused([true, "a"], "E_LABELS_INVALID");
  await refused(["a", " "], "E_DATA_NO_ANSWER");
  await refused([0, 2], "E_LABELS_INVALID");
  await refused([1, "a"], "E_LABELS_INVALID");
  await refused([["a"]], "E_DATA_ROW_FORMAT");
  await refused(["a", "a"], "E_LABELS_INVALID");
  await refused([null], "E_DATA_NO_ANSWER");
});

test("labels that only rows kept for validation have are named with their place, and leave nothing out", async () => {
  const rowsOf = (labels: readonly unknown[]): Promise<string> =>
    jsonl(labels.map((label, i) => ({ text: `the ${i}`, label })));
  const validation = await rowsOf([0, 1]);
  for (const onBadExample of ["error", "skip"] as const) {
    await assert.rejects(
      prepare(await rowsOf([0, 2]), { validation: [{ source: validation }], onBadExample }),
      (error) => {
        assert.ok(isLockstepError(error) && error.code === "E_LABELS_INVALID", String(error));
        const place = `the label "1" (${validation}:2) is only in rows that are kept for validation`;
        assert.ok(error.message.includes(place), error.message);
        assert.doesNotMatch(error.hint, /on_bad_row/);
        return true;
      },
    );
  }
  const source = await rowsOf(["a", "a"]);
  const other = await rowsOf(["a", "b"]);
  await assert.rejects(
    prepare(source, { validation: [{ source: other }] }),
    /all rows to train on have the label "a"; the label "b" \(.*:2\) is only in rows/,
  );
});
