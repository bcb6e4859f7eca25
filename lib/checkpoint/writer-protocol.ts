import type { FloatDtype } from "#lib/core/dtype";
import type { WrittenPlace } from "#lib/core/saved-files";
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
