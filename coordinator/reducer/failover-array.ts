import type { SavedFile } from "#lib/core/saved-files";
import type { DistantArray } from "#lib/core/shard-arrays";
import type { KeptElsewhere, KeptFiles } from "#coordinator/kept-elsewhere";

/** Where elements are read that two processes have. */
interface ReadFrom {
  readonly kept: KeptElsewhere | undefined;
  /** Called when they cannot be read. @throws where no other process has them */
  readonly failed: (error: unknown) => void;
}

/** What a shard keeps of which two processes have a copy. @param readFrom the one that is the shard now */
export function failoverPiece(readFrom: () => ReadFrom): KeptElsewhere {
  const { masters, states = {} } = readFrom().kept ?? {};
  /** Has a file written by the process that is the shard, and where it dies by the one that takes over. */
  const saved = async (
    save: (files: KeptFiles) => Promise<SavedFile | undefined>,
  ): Promise<SavedFile | undefined> => {
    for (;;) {
      const { kept, failed } = readFrom();
      if (kept?.files === undefined) return undefined;
      try {
        return await save(kept.files);
      } catch (error) {
        failed(error);
      }
    }
  };
  const array = (
    length: number,
    pick: (of: KeptElsewhere) => KeptElsewhere["masters"] | undefined,
  ): FailoverArray =>
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
    files: {
      saveState: async (place) => saved((files) => files.saveState(place)),
      saveTensors: async (...asked) => saved((files) => files.saveTensors(...asked)),
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
