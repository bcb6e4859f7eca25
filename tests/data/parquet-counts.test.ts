import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { gzipSync } from "node:zlib";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { BadExamples } from "#lib/data/bad-examples";
import { readRawExamples } from "#lib/data/readers/index";

const directory = await mkdtemp(join(tmpdir(), "lockstep-parquet-"));
after(() => rm(directory, { recursive: true }));

async function rowsOf(path: string): Promise<unknown[]> {
  const rows: unknown[] = [];
  for await (const { fields } of readRawExamples(path, new BadExamples("error"))) rows.push(fields);
  return rows;
}

/** Thrift's compact protocol, as far as Parquet's metadata need it. */
type Value = number | bigint | boolean | string | Fields | { readonly list: readonly Value[] };
type Fields = ReadonlyMap<number, Value>;
const fields = (...entries: readonly (readonly [number, Value])[]): Fields => new Map(entries);
const varint = (value: bigint): number[] =>
  value < 128n ? [Number(value)] : [Number(value & 127n) | 128, ...varint(value >> 7n)];
const zigzag = (value: number | bigint): number[] =>
  varint(BigInt(value) < 0n ? -2n * BigInt(value) - 1n : 2n * BigInt(value));
const isList = (value: Value): value is { readonly list: readonly Value[] } =>
  typeof value === "object" && !(value instanceof Map);
function kindOf(value: Value): number {
  if (typeof value === "boolean") return value ? 1 : 2;
  if (typeof value === "number") return 5;
  if (typeof value === "bigint") return 6;
  if (typeof value === "string") return 8;
  return isList(value) ? 9 : 12;
}
function write(value: Value): number[] {
  if (typeof value === "boolean") return [];
  if (typeof value === "number" || typeof value === "bigint") return zigzag(value);
  if (typeof value === "string") return [...varint(BigInt(value.length)), ...Buffer.from(value)];
  if (isList(value)) {
    const kind = kindOf(value.list[0] ?? 0);
    return [0xf0 | kind, ...varint(BigInt(value.list.length)), ...value.list.flatMap(write)];
  }
  return [...value]
    .flatMap(([id, each]) => [kindOf(each), ...zigzag(id), ...write(each)])
    .concat(0);
}

const optional = 1;
const repeated = 2;
const int32 = 1;
const text = 6;
interface Column {
  readonly type?: number;
  readonly repetition?: number;
  readonly codec?: number;
  readonly numRows?: bigint;
  readonly pages: readonly (readonly [Fields, Uint8Array])[];
  /** Columns that all have the same pages, at the same place. */
  readonly numColumns?: number;
}

/** A Parquet file of columns that are called c0, c1 and so on. */
function parquet(column: Column): Buffer {
  const { type = int32, repetition = 0, codec = 0, numRows = 4n, numColumns = 1 } = column;
  const pages = Buffer.concat(
    column.pages.flatMap(([header, body]) => [Buffer.from(write(header)), body]),
  );
  const names = Array.from({ length: numColumns }, (_, i) => `c${i}`);
  const chunk = (name: string): Fields =>
    fields(
      [2, 4n],
      [
        3,
        fields(
          [1, type],
          [2, { list: [0] }],
          [3, { list: [name] }],
          [4, codec],
          [5, numRows],
          [6, BigInt(pages.length)],
          [7, BigInt(pages.length)],
          [9, 4n],
        ),
      ],
    );
  const leaves = names.map((name) => fields([1, type], [3, repetition], [4, name]));
  return withFooter(
    pages,
    fields(
      [1, 1],
      [2, { list: [fields([4, "schema"], [5, numColumns]), ...leaves] }],
      [3, numRows],
      [4, { list: [fields([1, { list: names.map(chunk) }], [2, 100n], [3, numRows])] }],
    ),
  );
}

function withFooter(pages: Uint8Array, footer: Fields | readonly number[]): Buffer {
  const metadata = Buffer.from(Array.isArray(footer) ? footer : write(footer as Fields));
  const end = Buffer.alloc(8);
  end.writeUInt32LE(metadata.length);
  end.write("PAR1", 4);
  return Buffer.concat([Buffer.from("PAR1"), pages, metadata, end]);
}

const page = (
  numValues: number,
  encoding: number,
  bytes: readonly number[],
  numBytes = bytes.length,
): readonly [Fields, Uint8Array] => [
  fields(
    [1, 0],
    [2, numBytes],
    [3, bytes.length],
    [5, fields([1, numValues], [2, encoding], [3, 3], [4, 3])],
  ),
  Uint8Array.from(bytes),
];
const dictionary = (numValues: number, bytes: readonly number[]): readonly [Fields, Uint8Array] => [
  fields([1, 2], [2, bytes.length], [3, bytes.length], [7, fields([1, numValues], [2, 0])]),
  Uint8Array.from(bytes),
];
const pageV2 = (
  header: readonly (readonly [number, Value])[],
  bytes: readonly number[],
): readonly [Fields, Uint8Array] => [
  fields([1, 3], [2, bytes.length], [3, bytes.length], [8, fields(...header)]),
  Uint8Array.from(bytes),
];

const word = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
const words = (...values: readonly number[]): number[] => values.flatMap(word);
/** A run of one value, so many times. */
const run = (times: number, value: number): number[] => [...varint(BigInt(times) * 2n), value];
const levels = (bytes: readonly number[]): number[] => [...word(bytes.length), ...bytes];
const delta = (block: number, parts: number, count: number, first: number): number[] => [
  ...[block, parts, count].flatMap((value) => varint(BigInt(value))),
  ...zigzag(first),
];
const huge = 2 ** 30;

test("a file that is written by hand is read, so that what is refused differs by its lie alone", async () => {
  const four = [{ c0: 1 }, { c0: 2 }, { c0: 3 }, { c0: 4 }];
  const same = [1, 1, 1, 1].map((c0) => ({ c0 }));
  const files: readonly (readonly [Column, unknown])[] = [
    [{ pages: [page(4, 0, words(1, 2, 3, 4))] }, four],
    [{ pages: [dictionary(1, words(1)), page(4, 8, [1, ...run(4, 0)])] }, same],
    [
      { repetition: optional, pages: [page(4, 0, [...levels(run(4, 1)), ...words(1, 2, 3, 4)])] },
      four,
    ],
    [{ pages: [page(4, 5, [...delta(128, 4, 4, 1), ...zigzag(1), 0, 0, 0, 0])] }, four],
  ];
  for (const [i, [column, rows]] of files.entries()) {
    const path = join(directory, `good-${i}.parquet`);
    await writeFile(path, parquet(column));
    assert.deepEqual(await rowsOf(path), rows);
  }
});

const gzipPage = (plain: readonly number[], encoding: number): readonly [Fields, Uint8Array] => {
  const bytes = [...gzipSync(Uint8Array.from(plain))];
  return page(4, encoding, bytes, plain.length);
};
const lies: Readonly<Record<string, Column>> = {
  "values of a page": { pages: [page(huge, 0, words(1, 2, 3, 4))] },
  "fewer than no values": { pages: [page(-5, 0, words(1, 2, 3, 4))] },
  "values in too few bytes": { pages: [page(1_000_000, 0, words(1, 2, 3, 4))] },
  "values of a dictionary": {
    pages: [dictionary(1_000_000, words(1)), page(4, 8, [1, ...run(4, 0)])],
  },
  "values for rows": { numRows: 9n, pages: [page(4, 0, words(1, 2, 3, 4))] },
  "a run of levels": {
    repetition: optional,
    pages: [page(4, 0, [...levels(run(huge, 1)), ...words(1, 2, 3, 4)])],
  },
  "a run of depths": {
    repetition: repeated,
    pages: [page(4, 0, [...levels(run(huge, 0)), ...levels(run(4, 1)), ...words(1, 2, 3, 4)])],
  },
  "bytes of levels": {
    repetition: optional,
    pages: [page(4, 0, [...word(huge), ...run(4, 1), ...words(1, 2, 3, 4)])],
  },
  "a run of indices": { pages: [dictionary(1, words(1)), page(4, 8, [1, ...run(huge, 0)])] },
  "a compressed run": { codec: 2, pages: [gzipPage([1, ...run(huge, 0)], 8)] },
  "packed indices without bits": {
    pages: [
      dictionary(1, words(1)),
      pageV2(
        [
          [1, 4],
          [2, 0],
          [3, 4],
          [4, 8],
          [5, 0],
          [6, 0],
          [7, false],
        ],
        [0, ...varint(BigInt(2 ** 31 - 1))],
      ),
    ],
  },
  "levels of the second kind": {
    repetition: optional,
    pages: [
      pageV2(
        [
          [1, 4],
          [2, 0],
          [3, 4],
          [4, 0],
          [5, 6],
          [6, 0],
          [7, false],
        ],
        run(huge, 1),
      ),
    ],
  },
  "more levels than the page": {
    repetition: optional,
    pages: [
      pageV2(
        [
          [1, 4],
          [2, 0],
          [3, 4],
          [4, 0],
          [5, huge],
          [6, 0],
          [7, false],
        ],
        run(4, 1),
      ),
    ],
  },
  "more nulls than values": {
    pages: [
      pageV2(
        [
          [1, 4],
          [2, 9],
          [3, 4],
          [4, 0],
          [5, 0],
          [6, 0],
          [7, false],
        ],
        words(1, 2, 3, 4),
      ),
    ],
  },
  "blocks of no differences": { pages: [page(4, 5, [...delta(0, 1, 4, 1), ...zigzag(1), 0])] },
  "blocks that go back": { pages: [page(4, 5, [...delta(2 ** 32 - 8, 1, 4, 1), ...zigzag(1), 8])] },
  "parts of a block": { pages: [page(4, 5, [...delta(huge, huge / 8, 4, 1), ...zigzag(1), 0])] },
  "a number without an end": {
    type: 2,
    pages: [page(4, 5, [...delta(128, 4, 4, 1), ...Array<number>(200_000).fill(128)])],
  },
  "shared starts": {
    type: text,
    // Of a text of three bytes, a thousand million.
    pages: [
      page(4, 7, [
        ...delta(128, 4, 4, 0),
        ...zigzag(huge),
        0,
        0,
        0,
        0,
        ...delta(128, 4, 4, 3),
        ...zigzag(0),
        0,
        0,
        0,
        0,
        97,
        98,
        99,
      ]),
    ],
  },
  "columns over one another": { numColumns: 200, pages: [page(4, 0, words(1, 2, 3, 4))] },
  "rows of a group": { numRows: 2n ** 60n, pages: [page(4, 0, words(1, 2, 3, 4))] },
};
for (const [name, column] of Object.entries(lies)) {
  test(`a Parquet file that lies about ${name} is refused`, async () => {
    const path = join(directory, `${name}.parquet`);
    await writeFile(path, parquet(column));
    await assert.rejects(rowsOf(path), (error) => {
      assert.ok(isLockstepError(error) && error.code === "E_DATA_PARQUET", String(error));
      assert.ok(error.message.includes(path));
      return true;
    });
  });
}

test("what is claimed of a column is refused by its name", async () => {
  const path = join(directory, "named.parquet");
  await writeFile(
    path,
    parquet({ pages: [dictionary(1, words(1)), page(4, 8, [1, ...run(huge, 0)])] }),
  );
  await assert.rejects(
    rowsOf(path),
    /column c0: a run claims 1073741824 values where 4 .* are left/,
  );
});

test("rows of one run each are refused where they take more memory than a row group may", async () => {
  const path = join(directory, "runs.parquet");
  const numRows = 16_000_000;
  await writeFile(
    path,
    parquet({
      numRows: BigInt(numRows),
      pages: [dictionary(1, words(1)), page(numRows, 8, [1, ...run(numRows, 0)])],
    }),
  );
  await assert.rejects(rowsOf(path), { code: "E_DATA_TOO_LARGE" });
});

test("a footer that lies about its lists, depth or members is refused", async () => {
  const nest = (depth: number): Fields[] => [
    ...Array.from({ length: depth }, () => fields([3, 0], [4, "g"], [5, 1])),
    fields([1, int32], [3, 0], [4, "leaf"]),
  ];
  const footer = (schema: readonly Fields[]): Fields =>
    fields([1, 1], [2, { list: schema }], [3, 0n], [4, { list: [] }]);
  const listOfLists = [
    0x19,
    ...Array.from({ length: 40 }, () => [0xf9, ...varint(2n ** 25n)]).flat(),
  ];
  const files: Readonly<Record<string, Fields | readonly number[]>> = {
    lists: listOfLists,
    structs: Array<number>(200_000).fill(0x1c),
    "number of 64 bits": [0x16, ...Array<number>(200_000).fill(0x80), 0],
    depth: footer(nest(5_000)),
    members: footer([fields([4, "schema"], [5, huge]), fields([1, int32], [4, "a"])]),
    "missing members": footer([fields([4, "schema"], [5, 2]), fields([1, int32], [4, "a"])]),
    "fixed length": footer([fields([4, "schema"], [5, 1]), fields([1, 7], [2, huge], [4, "a"])]),
  };
  for (const [name, lie] of Object.entries(files)) {
    const path = join(directory, `footer of ${name}.parquet`);
    await writeFile(path, withFooter(Buffer.alloc(0), lie));
    await assert.rejects(rowsOf(path), { code: "E_DATA_PARQUET" }, name);
  }
});

test("every encoding of pages is read alike in both kinds of pages", async () => {
  const folder = join(packageRoot, "tests/fixtures/parquet");
  const expected = Array.from({ length: 12 }, (_, i) => ({
    text: i % 5 === 4 ? null : `question ${i}`,
    shared: `prefix/${Math.floor(i / 4)}/${i}`,
    id: i * i - 7,
    big: i === 3 ? null : i * 2 ** 40,
    score: i / 8,
    flag: i % 3 === 0,
    label: i % 3 === 1 ? "no" : "yes",
    turns: Array.from({ length: i % 3 }, (_, j) => `turn ${j}`),
  }));
  for (const version of [1, 2]) {
    const path = join(folder, `encodings-${version}.parquet`);
    assert.deepEqual(await rowsOf(path), expected);
  }
});
