import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import {
  type BatchField,
  type FieldArray,
  fieldArray,
  hasField,
  ignoredTarget,
  lengthField,
  valuesPerRow,
} from "#lib/core/batch";
import { rowArrays, type TrainingRows } from "./rows.js";

/** Values that are hashed between two turns of the event loop: some milliseconds of work. */
const valuesPerTurn = 2 ** 20;

/**
 * SHA-256 of what is learnt from rows, in their order: tokens, targets, and where examples begin. Files,
 * their names and their dates do not enter, nor does how often or in which order a plan takes the rows.
 */
export async function rowsSha256(rows: TrainingRows): Promise<string> {
  const { numRows, sequenceLength, inputs, targets, paddingTokenId = 0 } = rows;
  const has = (name: string): boolean => hasField(inputs, name);
  const hash = createHash("sha256");
  hash.update(
    JSON.stringify([numRows, sequenceLength, has("segments"), has("tokenTypes"), paddingTokenId]),
  );
  const parts = [...inputs, ...targets].map((field): [BatchField, FieldArray] => [
    field,
    fieldArray(field, valuesPerRow(field, sequenceLength)),
  ]);
  const arrays = rowArrays(rows, parts);
  // Positions follow from segments, and lengths are there.
  const hashed = parts.flatMap(([field, values]) => {
    const isTarget = targets.includes(field);
    return ["positions", lengthField.name].includes(field.name)
      ? []
      : [{ values, isTarget, isOfTokens: field.perRow === "token" }];
  });
  // The tokens, then their targets.
  const rank = ({ values, isTarget }: (typeof hashed)[number]): number =>
    values === arrays.tokens ? 0 : isTarget ? 1 : 2;
  hashed.sort((a, b) => rank(a) - rank(b));
  const length = new Int32Array(1);
  let sinceTurn = 0;
  for (let row = 0; row < numRows; row++) {
    for (const { values, isTarget } of hashed) values.fill(isTarget ? ignoredTarget : 0);
    rows.write(row, arrays);
    const numTokens = (length[0] = rows.lengthOf(row));
    hash.update(bytesOf(length));
    for (const { values, isOfTokens } of hashed) {
      hash.update(bytesOf(isOfTokens ? values.subarray(0, numTokens) : values));
      // A field of rows takes the room of one of tokens.
      const numLeft = isOfTokens ? 0 : numTokens - values.length;
      if (numLeft > 0) hash.update(bytesOf(new Int32Array(numLeft).fill(ignoredTarget)));
    }
    sinceTurn += hashed.length * numTokens;
    if (sinceTurn < valuesPerTurn) continue;
    sinceTurn = 0;
    await setImmediate();
  }
  return hash.digest("hex");
}

const bytesOf = (values: FieldArray): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
