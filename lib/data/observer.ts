import type { LockstepError } from "#lib/core/errors/index";
import type { DatasetFormat } from "./formats/index.js";

/** An example as it was tokenised. */
export interface ObservedExample {
  /** Where it came from: a file's name, and the line in a file of examples. */
  readonly place: string;
  /** How it was read, where that is known. */
  readonly format: DatasetFormat | undefined;
  /** Before anything is cut off. */
  readonly numTokens: number;
}

/** What a preparation meets on its way, for somebody who looks on. Nothing depends on it. */
export interface DataObserver {
  /** A file, or a built-in data set, is about to be read. */
  readonly onSource?: (source: string) => void;
  /** An example was read, in this format. */
  readonly onRead?: (source: string, format: DatasetFormat) => void;
  /** The example that was read last is a blank text, and is left out. */
  readonly onBlank?: (source: string) => void;
  readonly onRejected?: (error: LockstepError) => void;
  /** Examples in their order, which {@link PreparedRows.examples} counts from 0. */
  readonly onExample?: (example: ObservedExample) => void;
}
