import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The token ids that bench/peers/make_model.py wrote beside a model. */
export function readTokens(modelDirectory: string): Int32Array {
  const bytes = readFileSync(join(modelDirectory, "tokens.i32"));
  return new Int32Array(Uint8Array.from(bytes).buffer);
}
