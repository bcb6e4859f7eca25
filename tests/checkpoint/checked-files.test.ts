import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  checkedFiles,
  checksumsFile,
  ownFolder,
  piecesFile,
  readCheckpointSums,
  writeCheckpointSums,
} from "#lib/checkpoint/checked-files";
import { writeChecksums } from "#lib/checkpoint/index";
import { pieceBytes, PieceSums } from "#lib/checkpoint/piece-sums";
import { localFiles } from "#lib/checkpoint/state-files";
import { rejectsWith, temporaryDirectory } from "./support.js";

const name = "optimizer-00001-of-00001.safetensors";
const sizes = [0, 1, pieceBytes, pieceBytes + 1, 3 * pieceBytes + 12_345];

async function checkpoint(directory: string, bytes: Uint8Array): Promise<void> {
  await mkdir(join(directory, ownFolder), { recursive: true });
  await rm(join(directory, piecesFile), { force: true });
  await writeFile(join(directory, ownFolder, name), bytes);
  await writeCheckpointSums(directory);
}

async function open(directory: string) {
  const sums = await readCheckpointSums(directory, directory);
  assert.ok(sums !== undefined);
  return checkedFiles(localFiles(join(directory, ownFolder)), sums, directory).open(name);
}

test("checksums of pieces are the same whatever parts the bytes come in", () => {
  for (const size of sizes) {
    const bytes = randomBytes(size);
    const whole = new PieceSums();
    whole.update(bytes);
    const parts = new PieceSums();
    for (let done = 0; done < size; done += 299_993) {
      parts.update(bytes.subarray(done, done + 299_993));
    }
    const digest = whole.digest();
    assert.equal(parts.digest(), digest);
    assert.equal(digest.length, 8 * Math.ceil(size / pieceBytes));
  }
});

test("any range of a file has its bytes, in shared memory too", async (t) => {
  const directory = await temporaryDirectory(t);
  for (const size of sizes) {
    const bytes = randomBytes(size);
    await checkpoint(directory, bytes);
    const reader = await open(directory);
    for (const [from, to] of [
      ...[0, 1, pieceBytes - 1, pieceBytes, 2 * pieceBytes - 7].map((at) => [at, size]),
      ...[0, 5, pieceBytes - 1].map((at) => [at, at + 9]),
      [0, 2 * pieceBytes],
      [7, 2 * pieceBytes + 3],
    ] as [number, number][]) {
      if (from > to || to > size) continue;
      const into = new Uint8Array(new SharedArrayBuffer(to - from));
      await reader.readInto(into, from);
      assert.ok(Buffer.from(into).equals(bytes.subarray(from, to)), `${size}: ${from} to ${to}`);
    }
    await rejectsWith(reader.readInto(new Uint8Array(2), size - 1), "E_FILE_TRUNCATED", /./);
    await reader.close();
  }
});

test("a bit that flipped anywhere in what is read is found, and one elsewhere is not looked for", async (t) => {
  const directory = await temporaryDirectory(t);
  const bytes = randomBytes(3 * pieceBytes + 100);
  await checkpoint(directory, bytes);
  const path = join(directory, ownFolder, name);
  for (const at of [0, pieceBytes - 1, pieceBytes + 500, bytes.length - 1]) {
    const damaged = Buffer.from(bytes);
    damaged[at] = (damaged[at] ?? 0) ^ 16;
    await writeFile(path, damaged);
    const reader = await open(directory);
    const start = Math.floor(at / pieceBytes) * pieceBytes;
    const problem = new RegExp(`${name} has a wrong checksum of its bytes ${start} to`);
    // All of it, a byte beside it in its piece, and the next piece.
    await rejectsWith(
      reader.readInto(new Uint8Array(bytes.length), 0),
      "E_CHECKPOINT_DAMAGED",
      problem,
    );
    await rejectsWith(
      reader.readInto(new Uint8Array(1), start + 7),
      "E_CHECKPOINT_DAMAGED",
      problem,
    );
    const other = start === 0 ? pieceBytes : 0;
    await reader.readInto(new Uint8Array(pieceBytes), other);
    await reader.close();
  }
  await writeFile(path, bytes.subarray(1));
  await rejectsWith(open(directory), "E_CHECKPOINT_DAMAGED", /has 3145827 bytes, not 3145828/);
});

test("a file without checksums of pieces, of an earlier version, is compared as a whole", async (t) => {
  const directory = await temporaryDirectory(t);
  const bytes = randomBytes(2 * pieceBytes + 100);
  await checkpoint(directory, bytes);
  await rm(join(directory, piecesFile));
  await writeChecksums(directory, checksumsFile);
  const whole = await open(directory);
  const into = new Uint8Array(10);
  await whole.readInto(into, 20);
  assert.ok(bytes.subarray(20, 30).equals(into));
  await whole.close();
  bytes[2 * pieceBytes + 7] = (bytes[2 * pieceBytes + 7] ?? 0) ^ 1;
  await writeFile(join(directory, ownFolder, name), bytes);
  const damaged = await open(directory);
  await rejectsWith(damaged.readInto(into, 20), "E_CHECKPOINT_DAMAGED", /has a wrong checksum\.$/);
  await damaged.close();
});

test("a list of pieces that is not the one that was saved is refused, and so is one of another format", async (t) => {
  const directory = await temporaryDirectory(t);
  await checkpoint(directory, randomBytes(100));
  const path = join(directory, piecesFile);
  const text = await readFile(path, "utf8");
  for (const [changed, problem] of [
    [text.replace(/"crc32": "./, '"crc32": "g'), /has no checksums of lockstep.optimizer-/],
    [text.replace('"sizeBytes": 100', '"sizeBytes": 1e9'), /has no checksums of/],
    [text.replace("pieces-1", "pieces-2"), /is no list of the format lockstep-pieces-1/],
  ] as const) {
    await writeFile(path, changed);
    await rejectsWith(open(directory), "E_CHECKPOINT_DAMAGED", /pieces.json has a wrong checksum/);
    await writeChecksums(directory, checksumsFile);
    await rejectsWith(open(directory), "E_CHECKPOINT_DAMAGED", problem);
  }
});
