import type fc from "fast-check";
import type { Draw } from "./draw.js";

/** Reads bytes from outside: a value, or an error of the catalogue, and nothing else. */
export interface ByteReader {
  readonly kind: "bytes";
  /** Valid inputs, which are mutated. */
  readonly corpus: readonly Uint8Array[];
  /** How the corpus may be mutated beside byte by byte. */
  readonly form: "bytes" | "json" | "text";
  /** Parts of the format's language, inserted into inputs. */
  readonly words?: readonly string[];
  /** Makes inputs that get further than mutated bytes do: a header that is well-formed and lies. */
  readonly generate?: (draw: Draw, corpus: readonly Uint8Array[]) => Uint8Array;
  /** @throws LockstepError for what it refuses */
  read(input: Buffer): unknown;
  close?(): Promise<void>;
}

/** Checks a property of values: what is written is read back equal. */
export interface PropertyReader {
  readonly kind: "property";
  readonly arbitrary: fc.Arbitrary<unknown>;
  /** @throws where the property does not hold */
  check(value: unknown): unknown;
  close?(): Promise<void>;
}

/** A reader of something from outside, as the fuzzer drives it. */
export interface Target {
  readonly name: string;
  /** How often it is drawn beside the others; slow ones less. */
  readonly share: number;
  /** Bytes of array buffers that one input may ask for. */
  readonly maxBufferBytes?: number;
  /** Places beside its folder that it has to write to, as node's permissions name them. */
  readonly writes?: readonly string[];
  /** Prepares the reader in an empty folder of its own, the only one that may be written to. */
  open(folder: string): Promise<ByteReader | PropertyReader>;
}

/**
 * A target of values of one type.
 *
 * @param check throws where the property does not hold; gets the folder that may be written to
 */
export const property = <T>(
  name: string,
  share: number,
  arbitrary: fc.Arbitrary<T>,
  check: (value: T, folder: string) => unknown,
): Target => ({
  name,
  share,
  open: async (folder) => ({
    kind: "property",
    arbitrary,
    check: (value) => check(value as T, folder),
  }),
});
