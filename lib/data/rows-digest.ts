import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { ignoredTarget } from "#lib/core/job";
import type { RowArrays, TrainingRows } from "./rows.js";

/** Values that are hashed between two turns of the event loop: some milliseconds of work. */
const valuesPerTurn = 2 ** 20;

/**
 * SHA-256 of what is learnt from rows, in their order: tokens, targets, and where examples begin. Files,
 * their names and their dates do not enter, nor does how often or in which order a plan takes the rows.
 */
export async function rowsSha256(rows: TrainingRows): Promise<string> {
  const { numRows, sequenceLength, hasSegments, hasTokenTypes = false } = rows;
  const { paddingTokenId = 0 } = rows;
  const hash = createHash("sha256");
  hash.update(
    JSON.stringify([numRows, sequenceLength, hasSegments, hasTokenTypes, paddingTokenId]),
  );
  const array = (): Int32Array => new Int32Array(sequenceLength);
  const arrays: RowArrays = {
    tokens: array(),
    targets: array(),
    ...(hasSegments ? { segments: array(), positions: array() } : {}),
    ...(hasTokenTypes ? { tokenTypes: array() } : {}),
  };
  const hashed = [arrays.tokens, arrays.targets, arrays.segments, arrays.tokenTypes].filter(
    (values) => values !== undefined,
  );
  const length = new Int32Array(1);
  let sinceTurn = 0;
  for (let row = 0; row < numRows; row++) {
    for (const values of hashed) values.fill(values === arrays.targets ? ignoredTarget : 0);
    rows.write(row, arrays);
    length[0] = rows.lengthOf(row);
    hash.update(bytesOf(length));
    for (const values of hashed) hash.update(bytesOf(values.subarray(0, length[0])));
    sinceTurn += hashed.length * length[0];
    if (sinceTurn < valuesPerTurn) continue;
    sinceTurn = 0;
    await setImmediate();
  }
  return hash.digest("hex");
}

const bytesOf = (values: Int32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
