import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import type { LabelReader } from "#lib/core/labels";
import { BadExamples } from "#lib/data/bad-examples";
import { contentOf, type DataSource, readExamples, sourceFiles } from "#lib/data/examples";
import { findSources, loadTokenizer, prepareDataset } from "#lib/data/index";
import { objectiveOf } from "#lib/objectives/index";
import { readRawExamples } from "#lib/data/readers/index";
import { mutateBytes } from "#tests/fuzz/byte-mutations";
import { type ByteReader, property, type Target } from "#tests/fuzz/target";
import { all, copyFixture, fixture, inFile, readFixture, texts } from "./files.js";

const labels = objectiveOf("single_label_classification").labels as LabelReader;

/** Reads every example of a source, first as a run that skips bad ones and then as one that does not. */
async function readAll(source: DataSource): Promise<void> {
  for (const policy of ["skip", "error"] as const) {
    const bad = new BadExamples(policy);
    let numRows = 0;
    for await (const example of readExamples(source, bad, {
      readLabel: (value) => labels.read(value),
    })) {
      contentOf(example);
      numRows++;
    }
    bad.checkShare(numRows);
  }
}

const jsonLines = (...values: readonly unknown[]): string =>
  values.map((value) => JSON.stringify(value)).join("\n");
const rows: readonly unknown[] = [
  { text: "one document" },
  {
    messages: [
      { role: "user", content: "q" },
      { role: "assistant", content: "a" },
    ],
  },
  { prompt: "p", completion: "c" },
  { instruction: "i", input: "x", output: "o", history: [["q", "a"]] },
  {
    conversations: [
      { from: "human", value: "q" },
      { from: "gpt", value: "a" },
    ],
    system: "s",
  },
  { text: "film", label: 1 },
  { sentence1: "a", sentence2: "b", label: "yes" },
  {
    messages: [
      { role: "user", content: [{ type: "text", text: "q" }] },
      { role: "assistant", tool_calls: [{ function: { name: "f", arguments: '{"a":1e999}' } }] },
      { role: "tool", content: "1", tool_call_id: "x" },
      { role: "assistant", content: "a", reasoning_content: "r" },
    ],
    tools: [{ type: "function", function: { name: "f", parameters: {} } }],
  },
];
const jsonCorpus = rows.map((row) => Buffer.from(jsonLines(row, row, row)));
const fixtures = (folder: string, ending: string): readonly Buffer[] =>
  fs
    .readdirSync(fixture("cases"))
    .filter((name) => name.includes(folder))
    .flatMap((name) =>
      fs
        .readdirSync(fixture("cases", name))
        .filter((file) => file.endsWith(ending))
        .map((file) => readFixture("cases", name, file)),
    );

const words = [
  '"messages":',
  '"role":',
  '"content":null',
  '"tool_calls":[]',
  '"label":',
  '"text":""',
  "\n\n",
  "\r\n",
  "}{",
  '""',
  ',"",',
  "sep=;\n",
];

const dataFile = (
  name: string,
  share: number,
  extension: string,
  reader: Pick<ByteReader, "corpus" | "form"> & Partial<ByteReader>,
  limits: Pick<Target, "maxBufferBytes"> = {},
): Target => ({
  name,
  share,
  ...limits,
  open: async (folder) => ({
    kind: "bytes",
    words,
    ...reader,
    read: inFile(join(folder, `data${extension}`), (file) => readAll({ source: file })),
  }),
});

const csvTexts = [
  'text,label\n"a, ""b""\nc",1\nd,2\n',
  "prompt;completion\np;c\nq;d\n",
  "\ufefftext\r\none\r\ntwo\r\n",
];

const parquet = dataFile(
  "data/parquet",
  6,
  ".parquet",
  {
    form: "bytes",
    corpus: [
      ...["none", "gzip", "snappy", "zstd", "encodings-1", "encodings-2"].map((name) =>
        readFixture("parquet", `${name}.parquet`),
      ),
      readFixture("conversations", "arrow.parquet"),
    ],
  },
  {
    // A page and its window, each of 128 MiB at most, twice over: a run reads skipping and then not.
    maxBufferBytes: 2 * 256 * 2 ** 20,
  },
);

/** Compressed lines whose content is hostile, and streams that are. */
const gzipLines = dataFile("data/jsonl-gz", 1, ".jsonl.gz", {
  form: "bytes",
  corpus: jsonCorpus.map((content) => gzipSync(content)),
  generate: (draw) => gzipSync(mutateBytes(draw.pick(jsonCorpus), draw, jsonCorpus, words)),
});

const datasetInfo: Target = {
  name: "data/dataset-info",
  share: 2,
  async open(folder) {
    const from = fixture("configs", "data");
    copyFixture(from, folder, ["greetings.json", "sums.jsonl", "translations.csv"]);
    const valid = readFixture("configs", "data", "dataset_info.json");
    const names = Object.keys(JSON.parse(valid.toString("utf8")) as object).filter(
      // Of a hub, which nothing is fetched from.
      (name) => name !== "poems",
    );
    return {
      kind: "bytes",
      form: "json",
      corpus: [valid],
      read: inFile(join(folder, "dataset_info.json"), () =>
        all(
          names.map((name) => async () => {
            for (const source of await findSources([name], { datasetDir: folder })) {
              await readAll(source);
            }
          }),
        ),
      ),
    };
  },
};

const card = `---
configs:
- config_name: default
  data_files:
  - split: train
    path: "*.jsonl"
- config_name: other
  data_dir: .
---
# Data
`;
const dataCard: Target = {
  name: "data/card",
  share: 1,
  async open(folder) {
    copyFixture(fixture("configs", "data"), folder, ["sums.jsonl"]);
    return {
      kind: "bytes",
      form: "text",
      corpus: texts(card),
      words: ["*a", "&a", "&a [*a, *a]", "<<: *a", "path: ../*", "***********x", "[!a", "!!js/x"],
      read: inFile(join(folder, "README.md"), async () => {
        await sourceFiles({ source: folder }, "train");
      }),
    };
  },
};

/** Examples through tokenizer, template, split and layout, as a run prepares them. */
const prepared: Target = {
  name: "data/prepared",
  share: 1,
  async open(folder) {
    const tokenizer = await loadTokenizer(fixture("tok"));
    return {
      kind: "bytes",
      form: "text",
      words,
      corpus: [...jsonCorpus, ...fixtures("25-json", ".jsonl")],
      read: inFile(join(folder, "data.jsonl"), async (file) => {
        const dataset = await prepareDataset(
          { train: [{ source: file }], validationFraction: 0.3, onBadExample: "skip" },
          {
            tokenizer,
            sequenceLength: 32,
            vocabSize: tokenizer.vocabSize,
            maxSequenceLength: 64,
            seed: 1,
            labelReaderOf: () => labels,
            spillDirectory: folder,
          },
        );
        dataset.close();
      }),
    };
  },
};

/** Text of every kind of character that JSON and CSV can hold. */
const field = fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 });
const writtenRows = property(
  "data/written",
  2,
  fc.record({
    names: fc.uniqueArray(fc.constantFrom("text", "b", "a b", "é"), { minLength: 2, maxLength: 4 }),
    rows: fc.array(fc.array(field, { minLength: 4, maxLength: 4 }), { minLength: 1, maxLength: 5 }),
  }),
  async ({ names, rows: cells }, folder) => {
    const records = cells.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i]])));
    const quoted = (value: string): string => `"${value.replaceAll('"', '""')}"`;
    const table = [names, ...cells.map((row) => row.slice(0, names.length))];
    const files: Readonly<Record<string, string>> = {
      "written.jsonl": records.map((record) => JSON.stringify(record)).join("\n"),
      "written.json": JSON.stringify(records, null, 1),
      "written.csv": table.map((row) => row.map(quoted).join(",")).join("\r\n"),
      "written.tsv": table.map((row) => row.map(quoted).join("\t")).join("\n"),
    };
    for (const [name, text] of Object.entries(files)) {
      const file = join(folder, name);
      fs.writeFileSync(file, text);
      const read: unknown[] = [];
      for await (const raw of readRawExamples(file, new BadExamples("error")))
        read.push(raw.fields);
      assert.deepEqual(read, records, name);
    }
  },
);

export const targets: readonly Target[] = [
  dataFile("data/jsonl", 5, ".jsonl", {
    form: "text",
    corpus: [...jsonCorpus, ...fixtures("25-json", ".jsonl"), ...fixtures("20-label", ".jsonl")],
  }),
  dataFile("data/json", 4, ".json", {
    form: "json",
    corpus: [
      ...rows.map((row) => Buffer.from(JSON.stringify([row, row]))),
      readFixture("configs", "data", "greetings.json"),
    ],
  }),
  dataFile("data/csv", 4, ".csv", {
    form: "text",
    corpus: [...texts(...csvTexts), ...fixtures("20-label", ".csv")],
  }),
  dataFile("data/tsv", 1, ".tsv", { form: "text", corpus: texts("text\tlabel\na\t1\nb\t2\n") }),
  dataFile("data/txt", 1, ".txt", {
    form: "text",
    corpus: texts("one\ntwo\n\nthree", "wörld\u0000"),
  }),
  parquet,
  gzipLines,
  datasetInfo,
  dataCard,
  prepared,
  writtenRows,
];
