import type { FloatDtype } from "#lib/core/dtype";
import type { StoreSettings } from "#lib/store/location";
import type { TensorParts } from "./elements.js";

/** Calls to a thread that writes files; those of a file by its number. */
export type WriterCall =
  | { readonly kind: "open"; readonly id: number; readonly place: WrittenPlace }
  | { readonly kind: "write"; readonly id: number; readonly bytes: Uint8Array }
  | {
      readonly kind: "elements";
      readonly id: number;
      readonly values: TensorParts;
      readonly dtype: FloatDtype;
      readonly tensor: string;
    }
  | { readonly kind: "close"; readonly id: number }
  /** It is not whole, and nothing of it is read any more. */
  | { readonly kind: "abandon"; readonly id: number }
  | { readonly kind: "end" };

/** A file of this machine, or an object. */
export type WrittenPlace =
  | { readonly file: string }
  | { readonly store: StoreSettings; readonly key: string };

/** What `close` answers. */
export interface WrittenFile {
  readonly sizeBytes: number;
  readonly sha256: string;
}
