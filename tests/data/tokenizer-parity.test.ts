import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer } from "#lib/data/index";

interface Pieces {
  readonly pools: readonly (readonly string[])[];
  readonly blanks: readonly string[];
  readonly ranges: readonly (readonly [number, number])[];
}
interface Recorded {
  readonly seed: number;
  readonly num_documents: number;
  readonly text_bytes: number;
  readonly text_sha256: string;
  readonly kinds: Readonly<
    Record<
      string,
      {
        readonly num_tokens: number;
        readonly sha256: string;
        readonly first_documents: readonly string[];
        readonly pair_ids: readonly number[];
        readonly pair_type_ids: readonly number[];
        readonly truncated: readonly {
          readonly first: number;
          readonly second: number | null;
          readonly limit: number;
          readonly ids: readonly number[];
          readonly type_ids: readonly number[];
        }[];
        readonly decoded_sha256: string;
      }
    >
  >;
}

const folder = join(packageRoot, "tests/fixtures/tokenizers");
const read = async (name: string): Promise<unknown> =>
  JSON.parse(await readFile(join(folder, name), "utf8"));
const pieces = (await read("pieces.json")) as Pieces;
const recorded = (await read("ids.json")) as Recorded;

/** The text of tests/reference/make_tokenizer_parity_fixture.py. */
function generateDocuments(): string[] {
  let state = recorded.seed;
  const below = (n: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state >>> 8) % n;
  };
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  const document = (numPieces: number): string => {
    let text = "";
    for (let i = 0; i < numPieces; i++) {
      const pool = pieces.pools[below(pieces.pools.length + 1)];
      if (pool !== undefined) text += pick(pool);
      else {
        const [low, high] = pick(pieces.ranges);
        text += String.fromCodePoint(low + below(high - low + 1));
      }
      text += pick(pieces.blanks);
    }
    return text;
  };
  const documents: string[] = [];
  for (let size = 0; size < 1_000_000; ) {
    const text = document(20 + below(600));
    documents.push(text);
    size += Buffer.byteLength(text);
  }
  return documents;
}

const digest = (ids: readonly Int32Array[]): string => {
  const hash = createHash("sha256");
  for (const part of ids) hash.update(part);
  return hash.digest("hex");
};
const textDigest = (text: string): string => createHash("sha256").update(text).digest("hex");

const documents = generateDocuments();

test("the generator gives the megabyte that was recorded", () => {
  assert.equal(documents.length, recorded.num_documents);
  const text = documents.join("");
  assert.equal(Buffer.byteLength(text), recorded.text_bytes);
  assert.ok(recorded.text_bytes >= 1_000_000);
  assert.equal(textDigest(text), recorded.text_sha256);
});

for (const [kind, expected] of Object.entries(recorded.kinds)) {
  test(`${kind}: the ids of 1 MB of mixed text equal those of Python's library`, async () => {
    const tokenizer = await loadTokenizer(join(folder, kind));
    const ids = await tokenizer.encodeMany(documents);
    assert.equal(
      ids.reduce((sum, { length }) => sum + length, 0),
      expected.num_tokens,
    );
    assert.deepEqual(
      ids.slice(0, expected.first_documents.length).map((part) => digest([part])),
      expected.first_documents,
    );
    assert.equal(digest(ids), expected.sha256);
    const decoded = await tokenizer.decode(ids[3] ?? []);
    assert.equal(textDigest(decoded), expected.decoded_sha256);
    // Cut as Python counts: by code points.
    const cut = (text: string | undefined, length: number): string =>
      Array.from(text ?? "")
        .slice(0, length)
        .join("");
    const pair = await tokenizer.encodePair(cut(documents[0], 200), cut(documents[1], 200));
    assert.deepEqual([...pair.ids], expected.pair_ids);
    assert.deepEqual([...pair.typeIds], expected.pair_type_ids);
    for (const { first, second, limit, ids: cutIds, type_ids } of expected.truncated) {
      const { ids: found, typeIds } = await tokenizer.encodePair(
        cut(documents[0], first),
        second === null ? null : cut(documents[1], second),
        limit,
      );
      assert.deepEqual([...found], cutIds);
      assert.deepEqual([...typeIds], type_ids);
    }
  });
}
