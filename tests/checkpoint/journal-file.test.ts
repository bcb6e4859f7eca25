import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { JournalFile, type JournalRecord, readJournal } from "#lib/checkpoint/journal-file";
import { isLockstepError } from "#lib/core/errors/index";

const folder = await mkdtemp(join(tmpdir(), "lockstep-journal-"));
after(() => rm(folder, { recursive: true }));

const written: readonly JournalRecord[] = [
  { value: { text: "ü\n", list: [1, null, [true]] }, arrays: {} },
  {
    value: {
      numbers: [0, -0, 0.1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    },
    arrays: { a: Float32Array.of(1.5, Number.NaN, -0), b: new Float32Array(0) },
  },
  // What a record begins with, inside one.
  { value: "LSJr".repeat(20), arrays: { c: new Float32Array(5).fill(-1) } },
];
const file = join(folder, "journal");
const ends: number[] = [];
const journal = await JournalFile.create(file, written[0] as JournalRecord);
ends.push(journal.numBytes);
for (const record of written.slice(1)) {
  await journal.append(record);
  ends.push(journal.numBytes);
}
await journal.close();
const bytes = await readFile(file);
const changed = join(folder, "changed");

test("what was written is read, to the last bit of its numbers", async () => {
  const { records, wholeBytes } = await readJournal(file);
  assert.deepEqual(records, written);
  assert.equal(wholeBytes, bytes.length);
});

test("a journal that is cut at any byte has the records before it", async () => {
  for (let length = 0; length < bytes.length; length++) {
    await writeFile(changed, bytes.subarray(0, length));
    const { records } = await readJournal(changed);
    const numWhole = ends.filter((end) => end <= length).length;
    assert.deepEqual(records, written.slice(0, numWhole), `cut after ${length} bytes`);
  }
});

test("a byte that is changed is refused, or is in the last record, which is left out then", async () => {
  const lastStart = ends.at(-2) ?? 0;
  for (let at = 0; at < bytes.length; at++) {
    const other = Buffer.from(bytes);
    other[at] = (other[at] ?? 0) ^ 0x41;
    await writeFile(changed, other);
    try {
      const { records } = await readJournal(changed);
      assert.ok(at >= lastStart, `byte ${at} was changed and nobody said so`);
      assert.deepEqual(records, written.slice(0, -1));
    } catch (error) {
      assert.ok(isLockstepError(error) && error.code === "E_JOURNAL_DAMAGED", String(error));
      assert.ok(at < lastStart, `byte ${at}: a journal is refused whose last record is not whole`);
    }
  }
});

test("zeros or other bytes behind the last record are what a death in mid-write leaves", async () => {
  for (const tail of [Buffer.alloc(4096), Buffer.from("LSJr and more"), bytes.subarray(8, 20)]) {
    await writeFile(changed, Buffer.concat([bytes, tail]));
    const { records, wholeBytes } = await readJournal(changed);
    assert.deepEqual(records, written);
    assert.equal(wholeBytes, bytes.length);
  }
});
