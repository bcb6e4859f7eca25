import { LockstepError } from "#lib/core/errors/index";
import type { Model } from "./model.js";

/** @throws E_SEQUENCE_TOO_LONG where the model was made for fewer positions */
export function checkPositions(model: Model, sequenceLength: number): void {
  const { maxPositions: maxLength } = model;
  if (sequenceLength > maxLength) {
    throw new LockstepError("E_SEQUENCE_TOO_LONG", { sequenceLength, maxLength });
  }
}
