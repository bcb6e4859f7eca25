import type * as tf from "@tensorflow/tfjs-core";
import type { DropoutKind } from "#lib/core/dropout";
import { dropout } from "#lib/ops/index";
import type { Dropout } from "./model.js";

/** x without what the pass drops of it. @param pass undefined: nothing */
export function dropped(pass: Dropout | undefined, kind: DropoutKind, x: tf.Tensor): tf.Tensor {
  const source = pass?.sourceOf(kind);
  return source === undefined ? x : dropout(x, source);
}
