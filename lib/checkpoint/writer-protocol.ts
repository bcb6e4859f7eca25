import type { FloatDtype } from "#lib/core/dtype";
import type { TensorParts } from "./elements.js";

/** Calls to a thread that writes files; those of a file by its number. */
export type WriterCall =
  | { readonly kind: "open"; readonly id: number; readonly file: string }
  | { readonly kind: "write"; readonly id: number; readonly bytes: Uint8Array }
  | {
      readonly kind: "elements";
      readonly id: number;
      readonly values: TensorParts;
      readonly dtype: FloatDtype;
      readonly tensor: string;
    }
  | { readonly kind: "close"; readonly id: number }
  | { readonly kind: "end" };

/** What `close` answers. */
export interface WrittenFile {
  readonly sizeBytes: number;
  readonly sha256: string;
}
