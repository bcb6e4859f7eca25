import { LockstepError } from "#lib/core/errors/index";
import type { StartingModel } from "./model.js";

interface TokenTable {
  readonly name: string;
  readonly shape: readonly [rows: number, width: number];
}

/** A model's table of tokens, which some checkpoints name without the base model's prefix. @throws E_MODEL_TENSOR_MISSING */
export function tokenTable({ facts, weights }: StartingModel): TokenTable {
  const { tokenEmbedding: wanted = "" } = facts;
  const found = weights.find(({ name }) => name === wanted || wanted.endsWith(`.${name}`));
  if (found !== undefined) return found as TokenTable;
  throw new LockstepError("E_MODEL_TENSOR_MISSING", {
    tensor: wanted,
    expectedShape: "[vocabulary, width]",
    got: "no such tensor in the checkpoint",
  });
}
