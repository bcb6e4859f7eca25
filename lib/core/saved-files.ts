import type { FloatDtype } from "./dtype.js";

/** Where objects are, and how they are reached; what of it is absent the official client finds itself. */
export interface StoreSettings {
  readonly bucket: string;
  /** Before every key, "" or with a slash at its end. */
  readonly prefix: string;
  /** URL of a store that is not AWS's; buckets are part of its paths. */
  readonly endpoint?: string | undefined;
  readonly region?: string | undefined;
}

/** Where a file is written: on this machine, or as an object. */
export type WrittenPlace =
  | { readonly file: string }
  | { readonly store: StoreSettings; readonly key: string };

export interface SavedFile {
  readonly sizeBytes: number;
  readonly sha256: string;
  /** Checksums of its pieces (`lib/checkpoint/piece-sums.ts`); empty: a process of an earlier version wrote it. */
  readonly pieces: string;
}

/** What of a shard's elements a model's file has: the masters, or their average. */
export const savedArrays = ["masters", "average"] as const;
export type SavedArray = (typeof savedArrays)[number];

/** Tensors of a model, in a file of their own. */
export interface SavedTensors {
  readonly array: SavedArray;
  readonly dtype: FloatDtype;
  /** Steps after which all elements have to be finite. */
  readonly finiteAfterStep: number;
  /** By index in the layout's tensors, with the name that the file gives it. */
  readonly tensors: readonly { readonly tensor: number; readonly name: string }[];
}

/** Writes files of what a shard keeps, where that is; undefined: nobody there can write at that place. */
export interface ShardFileWriter {
  /** Masters and what the optimizer keeps. */
  saveState(place: WrittenPlace): Promise<SavedFile | undefined>;
  /** Tensors that begin in the shard's range; what of them others keep is fetched from there. */
  saveTensors(place: WrittenPlace, content: SavedTensors): Promise<SavedFile | undefined>;
}
