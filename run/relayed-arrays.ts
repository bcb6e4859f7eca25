import type { DistantArray, KeptArray } from "#lib/core/shard-arrays";
import type { Snapshot } from "#coordinator/options";

/** Called with bytes that were read. */
type OnRead = (numBytes: number) => void;

/** What shards of other processes keep, counted as it is read into this one. */
export const counted = (snapshot: Snapshot, onRead: OnRead): Snapshot =>
  snapshot.map(({ masters, states, ...piece }) => ({
    ...piece,
    masters: countedArray(masters, onRead),
    states: Object.fromEntries(
      Object.entries(states).map(([slot, array]) => [slot, countedArray(array, onRead)]),
    ),
  }));

const countedArray = (array: KeptArray, onRead: OnRead): KeptArray =>
  array instanceof Float32Array ? array : new CountedArray(array, onRead);

class CountedArray implements DistantArray {
  readonly #array: DistantArray;
  readonly #onRead: OnRead;

  constructor(array: DistantArray, onRead: OnRead) {
    this.#array = array;
    this.#onRead = onRead;
  }

  get length(): number {
    return this.#array.length;
  }

  get byteLength(): number {
    return this.#array.byteLength;
  }

  subarray(start: number, end: number): CountedArray {
    return new CountedArray(this.#array.subarray(start, end), this.#onRead);
  }

  async *pieces(): AsyncGenerator<Float32Array<ArrayBuffer>> {
    for await (const piece of this.#array.pieces()) {
      this.#onRead(piece.byteLength);
      yield piece;
    }
  }
}
