import { LockstepError } from "#lib/core/errors/index";

/** A row of T tokens predicts T - 1 of them. */
export const minSequenceLength = 2;

/**
 * @param maximum the model's context, tokens
 * @throws E_SEQUENCE_LENGTH
 */
export function checkSequenceLength(
  sequenceLength: number,
  maximum: number = Number.MAX_SAFE_INTEGER,
): void {
  if (
    !Number.isInteger(sequenceLength) ||
    sequenceLength < minSequenceLength ||
    sequenceLength > maximum
  ) {
    throw new LockstepError("E_SEQUENCE_LENGTH", {
      sequenceLength,
      minimum: minSequenceLength,
      maximum,
    });
  }
}
