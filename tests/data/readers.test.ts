import assert from "node:assert/strict";
import { appendFile, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { BadExamples, maxListedExamples } from "#lib/data/bad-examples";
import { FloatNumber, plainNumber } from "#lib/data/json-data";
import { type RawExample, readRawExamples } from "#lib/data/readers/index";
import { maxFooterBytes } from "#lib/data/readers/parquet";
import { repeatedKey } from "#lib/data/readers/repeated-key";
import { maxExampleBytes } from "#lib/data/readers/raw-example";
import { dataFiles } from "#lib/data/sources/index";

const directory = await mkdtemp(join(tmpdir(), "lockstep-readers-"));
after(() => rm(directory, { recursive: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
}

async function rowsOf(path: string, badExamples = new BadExamples("error")): Promise<RawExample[]> {
  const rows: RawExample[] = [];
  for await (const row of readRawExamples(path, badExamples)) rows.push(row);
  return rows;
}
const fieldsOf = async (path: string): Promise<unknown[]> =>
  (await rowsOf(path)).map(({ fields }) => plain(fields));
/** What is nested in a row, with objects and numbers of JavaScript. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof FloatNumber || typeof value === "bigint") return Number(plainNumber(value));
  if (typeof value !== "object" || value === null) return value;
  const entries =
    value instanceof Map ? [...(value as Map<string, unknown>)] : Object.entries(value);
  return Object.fromEntries(entries.map(([name, each]) => [name, plain(each)]));
}

function failure(code: string, facts: object = {}): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isLockstepError(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.deepEqual({ ...error.details, ...facts }, error.details);
    return true;
  };
}

const jsonRows = fc.array(
  fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue({ stringUnit: "binary" })),
  { maxLength: 8 },
);
/** What JSON keeps: no -0, no lone halves of characters. */
const kept = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

test("an array, objects over several lines and JSON Lines give the same rows", async () => {
  await fc.assert(
    fc.asyncProperty(jsonRows, fc.constantFrom(0, 1, 4), async (rows, indent) => {
      const expected = kept(rows);
      const array = await file("array.json", `\uFEFF ${JSON.stringify(rows, null, indent)}\n`);
      assert.deepEqual(await fieldsOf(array), expected);
      const texts = rows.map((row) => JSON.stringify(row, null, indent));
      assert.deepEqual(await fieldsOf(await file("one-by-one.json", texts.join("\n"))), expected);
      const lines = rows.map((row) => JSON.stringify(row)).join("\n");
      assert.deepEqual(await fieldsOf(await file("lines.jsonl", lines)), expected);
    }),
    { numRuns: 60 },
  );
});

test("a comma after the last row of an array is passed over", async () => {
  assert.deepEqual(await fieldsOf(await file("comma.json", '[{"a": 1},\n{"b": 2} , ]\n')), [
    { a: 1 },
    { b: 2 },
  ]);
});

test("a wrong JSON file is named by line and column", async () => {
  const cases = [
    ['[\n  {"a": 1},\n  {"a": x}\n]', 3, 9],
    ['[\n  {"a": 1}\n  3\n]', 3, 3],
    ['[\n  {"a":\n    [1, }\n  }]', 3, 9],
    ['[{"a": 1}] {"b": 2}', 1, 12],
    ['[{"a": 1}\n {"b": 2}]', 2, 2],
    ['[{"a": 1},\n , {"b": 2}]', 2, 2],
    ['[,{"a": 1}]', 1, 2],
    ['[{"a": 1},,]', 1, 11],
    ['{"a": 1},\n{"b": 2}', 1, 9],
    ['[\n  {"a": NaN}\n]', 2, 9],
    ['[{"a": 1}', 1, 9],
    ['[{"a": 1', 1, 8],
    ["nonsense", 1, 1],
  ] as const;
  for (const [text, line, column] of cases) {
    const path = await file("wrong.json", text);
    const place = { file: path, line, column };
    await assert.rejects(rowsOf(path), failure("E_DATA_INVALID_JSON", place), text);
  }
});

test("every value of a table comes back, whatever it holds and whatever separates it", async () => {
  const value = fc.stringMatching(/^[a-z "é,;|\t\n]{0,8}$/);
  const tables = fc
    .integer({ min: 1, max: 4 })
    .chain((width) => fc.array(fc.array(value, { minLength: width, maxLength: width })));
  await fc.assert(
    fc.asyncProperty(
      tables,
      fc.constantFrom(",", "\t", ";", "|"),
      fc.boolean(),
      async (rows, separator, crlf) => {
        const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;
        const plain = (text: string): string => (/["\n,;|\t]|^$/.test(text) ? quoted(text) : text);
        const width = (rows[0] ?? ["x"]).length;
        // One column tells no separator.
        const between = width === 1 ? "," : separator;
        const header = Array.from({ length: width }, (_, i) => `column ${i}`);
        const lines = [header, ...rows].map((row) => row.map(plain).join(between));
        // A line end inside a value stays as it is.
        const text = `\uFEFF${lines.join(crlf ? "\r\n" : "\n")}\n`;
        const path = await file(between === "\t" && crlf ? "table.tsv" : "table.csv", text);
        const expected = rows.map((row) =>
          Object.fromEntries(header.map((name, i) => [name, row[i]])),
        );
        assert.deepEqual(await fieldsOf(path), expected);
      },
    ),
    { numRuns: 100 },
  );
});

test("a table with a quote that is not closed, or rows of another width, is refused by line", async () => {
  const open = await file("open.csv", 'a,b\n1,2\n"3,4\n5,6\n');
  await assert.rejects(rowsOf(open), failure("E_DATA_CSV", { file: open, line: 3 }));
  const wide = await file("wide.csv", "a,b\n1,2,3\n");
  await assert.rejects(rowsOf(wide), failure("E_DATA_CSV", { file: wide, line: 2 }));
  assert.deepEqual(await fieldsOf(await file("inches.csv", 'a,b\n5" pipe,1\n6",2\n')), [
    { a: '5" pipe', b: "1" },
    { a: '6"', b: "2" },
  ]);
  const after = await file("after.csv", 'a,b\n"1"x,2\n');
  await assert.rejects(rowsOf(after), failure("E_DATA_CSV", { file: after, line: 2 }));
  const columns = await file("columns.csv", `${"x,".repeat(20_000)}x\n`);
  await assert.rejects(
    rowsOf(columns),
    failure("E_DATA_TOO_MANY_COLUMNS", { file: columns, numColumns: 20_001 }),
  );
});

test("the header tells the separator, and columns have one name each", async () => {
  const semicolons = 'text; label\r\n"a; b, c";good\r\nd,bad\r\n';
  const path = await file("semicolons.csv", semicolons);
  const rows = rowsOf(path);
  await assert.rejects(rows, failure("E_DATA_CSV", { file: path, line: 3 }));
  const good = await file("good.csv", semicolons.replace("d,bad", "d,e;bad"));
  assert.deepEqual(await fieldsOf(good), [
    { text: "a; b, c", label: "good" },
    { text: "d,e", label: "bad" },
  ]);
  assert.deepEqual(await fieldsOf(await file("excel.csv", "sep=;\na;b\n1,5;2\n")), [
    { a: "1,5", b: "2" },
  ]);
  assert.deepEqual(await fieldsOf(await file("tabs.csv", "a\tb\nx, y\tz\n")), [
    { a: "x, y", b: "z" },
  ]);
  // One column whose values hold other separators stays one.
  assert.deepEqual(await fieldsOf(await file("one.csv", "text\na; b\n")), [{ text: "a; b" }]);
  // pandas writes its index into a column without a name.
  assert.deepEqual(await fieldsOf(await file("pandas.csv", ",text\n0,a\n1,b\n")), [
    { text: "a" },
    { text: "b" },
  ]);
  for (const [text, line] of [
    ["a,b, a\n1,2,3\n", 1],
    ['"",""\n1,2\n', 1],
    ["a,b\r1,2\r", 1],
    ['a,b\n1, "x, y"\n', 2],
  ] as const) {
    const wrong = await file("wrong-header.csv", text);
    await assert.rejects(rowsOf(wrong), failure("E_DATA_CSV", { file: wrong, line }), text);
  }
});

test("a row without an end is refused by its line, in the memory of one row", async () => {
  const endless = 10 * 2 ** 30;
  // The rest of the file is zeros, of which the file system keeps nothing.
  for (const [name, head, line] of [
    ["endless.jsonl", '{"a": 1}\n\n{"a": "', 3],
    ["endless.json", '[\n  {"a": 1},\n  {"a": "', 3],
    ["endless.csv", "a,b\n1,2\n3,", 3],
    ["open.csv", 'a,b\n1,2\n\n3,"x\ny', 5],
    ["header.tsv", "a\tb", 1],
  ] as const) {
    const path = await file(name, head);
    await truncate(path, endless);
    const atStart = process.resourceUsage().maxRSS;
    const facts = { what: `row of line ${line}`, limitBytes: maxExampleBytes };
    await assert.rejects(rowsOf(path), failure("E_DATA_TOO_LARGE", facts), name);
    const grownBytes = (process.resourceUsage().maxRSS - atStart) * 1024;
    assert.ok(grownBytes < 8 * maxExampleBytes, `${name} took ${grownBytes} bytes`);
    await truncate(path, 0);
  }
  // Many short lines in a field that is not closed.
  const lines = await file("lines.csv", `a,b\n1,2\n3,"${"x".repeat(1023)}\n`);
  const block = Buffer.from(`${"y".repeat(1023)}\n`.repeat(2 ** 10));
  for (let size = 0; size < 70 * 2 ** 20; size += block.length) await appendFile(lines, block);
  const facts = { what: "row of line 3", limitBytes: maxExampleBytes };
  await assert.rejects(rowsOf(lines), failure("E_DATA_TOO_LARGE", facts));
});

test("Parquet files of every usual codec are read over their row groups", async () => {
  const folder = join(packageRoot, "tests/fixtures/parquet");
  for (const codec of ["snappy", "gzip", "zstd", "none"]) {
    const rows = await rowsOf(join(folder, `${codec}.parquet`));
    assert.deepEqual(
      rows.map(({ fields }) => fields),
      Array.from({ length: 7 }, (_, i) => ({
        id: i,
        messages: [
          { role: "user", content: `question ${i} é 你好 🙂` },
          { role: "assistant", content: `answer ${i}` },
        ],
        counts: [{ n: i }, { n: 2 }],
      })),
    );
    assert.match(rows[6]?.place ?? "", /: row 7$/);
  }
});

test("damaged and hostile Parquet files are refused before much is read", async () => {
  const whole = await readFile(join(packageRoot, "tests/fixtures/parquet/snappy.parquet"));
  for (const [name, bytes] of [
    ["empty", Buffer.alloc(0)],
    ["other", Buffer.from("not a Parquet file, but some text")],
    ["cut", whole.subarray(0, whole.length - 5)],
    [
      "beyond",
      Buffer.concat([Buffer.from("PAR1"), Buffer.from("ffff0000", "hex"), Buffer.from("PAR1")]),
    ],
    [
      "garbled",
      Buffer.concat([Buffer.alloc(64, 0x7c), Buffer.from([64, 0, 0, 0]), Buffer.from("PAR1")]),
    ],
  ] as const) {
    const path = await file(`${name}.parquet`, bytes);
    await assert.rejects(rowsOf(path), failure("E_DATA_PARQUET", { file: path }), name);
  }
  const footer = Buffer.alloc(8);
  footer.writeUInt32LE(maxFooterBytes + 1);
  footer.write("PAR1", 4);
  const large = await file("large.parquet", "");
  await truncate(large, 2 * maxFooterBytes);
  await writeFile(large, footer, { flag: "a" });
  await assert.rejects(
    rowsOf(large),
    failure("E_DATA_TOO_LARGE", { what: "footer", limitBytes: maxFooterBytes }),
  );
  const wide = await file("wide.parquet", wideParquet(1_000_000));
  await assert.rejects(
    rowsOf(wide),
    failure("E_DATA_TOO_MANY_COLUMNS", { file: wide, numColumns: 1_000_000 }),
  );
});

/** A file without rows, whose schema has so many columns: Thrift's compact protocol by hand. */
function wideParquet(numColumns: number): Buffer {
  const varint = (value: number): number[] =>
    value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)];
  const zigzag = (value: number): number[] => varint(value * 2);
  // SchemaElement: field 4 name; the root has field 5 num_children, the columns field 1 type.
  const root = [0x48, 1, 0x72, 0x15, ...zigzag(numColumns), 0];
  const column = [0x15, ...zigzag(1), 0x38, 1, 0x78, 0];
  const head = [0x15, ...zigzag(1), 0x19, 0xfc, ...varint(numColumns + 1)];
  // FileMetaData: 1 version, 2 schema, 3 num_rows, 4 row_groups.
  const tail = [0x16, 0, 0x19, 0x0c, 0];
  const body = Buffer.concat([
    Buffer.from([...head, ...root]),
    Buffer.alloc(numColumns * column.length, Buffer.from(column)),
    Buffer.from(tail),
  ]);
  const end = Buffer.alloc(8);
  end.writeUInt32LE(body.length);
  end.write("PAR1", 4);
  return Buffer.concat([Buffer.from("PAR1"), body, end]);
}

test("compressed files are read as the files inside, and damaged ones are refused", async () => {
  const lines = Array.from({ length: 5000 }, (_, i) => JSON.stringify({ text: `row ${i}` }));
  const compressed = gzipSync(lines.join("\n"));
  const rows = await rowsOf(await file("rows.jsonl.gz", compressed));
  assert.equal(rows.length, 5000);
  assert.deepEqual(rows[4999]?.fields, { text: "row 4999" });
  const cut = await file("cut.jsonl.gz", compressed.subarray(0, compressed.length / 2));
  await assert.rejects(rowsOf(cut), failure("E_DATA_GZIP", { file: cut }));
});

test("bad rows are left out, counted and listed where the configuration says so", async () => {
  const good = '{"text":"fine"}\n';
  const bytes = Buffer.concat([
    Buffer.from(`${good}{"text": wrong}\n[1]\n${good}{"text":"`),
    Buffer.from([0xff]),
    Buffer.from(`"}\n${good}`),
  ]);
  const path = await file("some-bad.jsonl", bytes);
  const badExamples = new BadExamples("skip");
  assert.deepEqual(
    (await rowsOf(path, badExamples)).map(({ place }) => place),
    [1, 4, 6].map((line) => `${path}:${line}`),
  );
  assert.equal(badExamples.count, 3);
  for (const [i, words] of [`${path}:2:10`, `${path}:3`, "not valid UTF-8"].entries()) {
    assert.ok(badExamples.listed[i]?.includes(words), badExamples.listed[i]);
  }
  badExamples.checkShare(6);
  assert.throws(
    () => badExamples.checkShare(5),
    failure("E_DATA_TOO_MANY_BAD_ROWS", { numBad: 3 }),
  );
  await assert.rejects(rowsOf(path), failure("E_DATA_INVALID_JSON", { line: 2 }));

  const all = await file("all-bad.jsonl", "x\n".repeat(maxListedExamples + 5));
  const many = new BadExamples("skip");
  await rowsOf(all, many);
  assert.equal(many.count, maxListedExamples + 5);
  assert.equal(many.listed.length, maxListedExamples);
});

test("patterns reach into directories", async () => {
  for (const folder of ["tree/a/b", "tree/c"]) {
    await mkdir(join(directory, folder), { recursive: true });
  }
  for (const name of [
    "tree/1.csv",
    "tree/a/2.csv",
    "tree/a/b/3.csv",
    "tree/c/34.csv",
    "tree/c/4.txt",
  ]) {
    await file(name, "");
  }
  const find = async (pattern: string): Promise<string[]> =>
    (
      await dataFiles(
        { path: join(directory, pattern), purpose: "train" },
        { isData: (name) => name.endsWith(".csv"), known: [] },
      )
    ).files.map((path) => path.slice(directory.length + 1));
  const tree = (...names: string[]): string[] => names.map((name) => `tree/${name}`);
  assert.deepEqual(await find("tree"), tree("1.csv", "a/2.csv", "a/b/3.csv", "c/34.csv"));
  assert.deepEqual(await find("tree/**/*.csv"), tree("1.csv", "a/2.csv", "a/b/3.csv", "c/34.csv"));
  assert.deepEqual(await find("tree/*/?.csv"), tree("a/2.csv"));
  assert.deepEqual(await find("tree/c/*"), tree("c/34.csv", "c/4.txt"));
  assert.deepEqual(await find("tree/*/b/3.csv"), tree("a/b/3.csv"));
  await assert.rejects(find("tree/*.tsv"), failure("E_DATASET_UNKNOWN"));
});

test("a key that an object has twice is found at any depth, and nowhere else", async () => {
  const key = fc.oneof(fc.string(), fc.constantFrom("a", 'q"', "\\", "{", "}", ":", "__proto__"));
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.jsonValue(),
      fc.array(tie("tree"), { maxLength: 3 }),
      fc.dictionary(key, tie("tree"), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(tree, key, fc.boolean(), (value, name, isSpaced) => {
      const text = JSON.stringify(value, null, isSpaced ? 2 : 0);
      assert.equal(repeatedKey(text), undefined);
      const quoted = JSON.stringify(name);
      for (const twice of [
        `{${quoted}:${text},${quoted} : 1}`,
        `[${text},{"x":[{${quoted}:1,"y${name.length}-":${text},${quoted}:2}]}]`,
      ]) {
        assert.equal(repeatedKey(twice), name);
      }
    }),
  );
  const file = join(directory, "twice.jsonl");
  await writeFile(file, '{"text":"a"}\n{"text":"b","text":"c"}\n');
  const read = async (): Promise<void> => {
    for await (const row of readRawExamples(file, new BadExamples("error")))
      assert.ok(row.fields["text"]);
  };
  await assert.rejects(read(), {
    code: "E_DATA_ROW_FORMAT",
    message: /twice\.jsonl:2: .*it has the key "text" twice in one object/,
  });
});
