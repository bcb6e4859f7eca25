import assert from "node:assert/strict";
import type { KeptArray } from "#lib/core/shard-arrays";

/** Elements that are in this process. */
export function inMemory(array: KeptArray | undefined): Float32Array {
  assert.ok(array instanceof Float32Array, "in memory");
  return array;
}

/** Elements, wherever they are. */
export async function fetched(array: KeptArray | undefined): Promise<Float32Array> {
  if (array === undefined || array instanceof Float32Array) return inMemory(array);
  const whole = new Float32Array(array.length);
  let at = 0;
  for await (const piece of array.pieces()) {
    whole.set(piece, at);
    at += piece.length;
  }
  assert.equal(at, whole.length);
  return whole;
}
