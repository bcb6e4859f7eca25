import type { DistantArray, KeptPiece } from "#lib/core/shard-arrays";

type Kept = Omit<KeptPiece, "range">;

/** Where elements are read that two processes have. */
interface ReadFrom {
  readonly kept: Kept | undefined;
  /** Called when they cannot be read. @throws where no other process has them */
  readonly failed: (error: unknown) => void;
}

/** What a shard keeps of which two processes have a copy. @param readFrom the one that is the shard now */
export function failoverPiece(readFrom: () => ReadFrom): Kept {
  const { masters, states = {} } = readFrom().kept ?? {};
  const array = (length: number, pick: (of: Kept) => Kept["masters"] | undefined): FailoverArray =>
    new FailoverArray(
      () => {
        const { kept, failed } = readFrom();
        return { array: kept && (pick(kept) as DistantArray | undefined), failed };
      },
      0,
      length,
    );
  return {
    masters: array(masters?.length ?? 0, (of) => of.masters),
    states: Object.fromEntries(
      Object.entries(states).map(([slot, { length }]) => [
        slot,
        array(length, (of) => of.states[slot]),
      ]),
    ),
    saveInto: async (file) => {
      const { kept, failed } = readFrom();
      try {
        return await kept?.saveInto?.(file);
      } catch (error) {
        failed(error);
        // What the other process has is read from it.
        return undefined;
      }
    },
  };
}

interface Place {
  readonly array: DistantArray | undefined;
  readonly failed: (error: unknown) => void;
}

/** Elements that are read from another process where the one that has them is lost meanwhile. */
class FailoverArray implements DistantArray {
  readonly #place: () => Place;
  readonly #start: number;
  readonly #end: number;

  /** @param place all of the array, wherever it is now */
  constructor(place: () => Place, start: number, end: number) {
    this.#place = place;
    this.#start = start;
    this.#end = end;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  get byteLength(): number {
    return this.length * Float32Array.BYTES_PER_ELEMENT;
  }

  subarray(start: number, end: number): FailoverArray {
    return new FailoverArray(this.#place, this.#start + start, this.#start + end);
  }

  async *pieces(): AsyncGenerator<Float32Array<ArrayBuffer>> {
    let at = this.#start;
    while (at < this.#end) {
      const { array, failed } = this.#place();
      if (array === undefined) throw new RangeError("The shard keeps nothing in another process");
      try {
        for await (const piece of array.subarray(at, this.#end).pieces()) {
          at += piece.length;
          yield piece;
        }
      } catch (error) {
        failed(error);
      }
    }
  }
}
