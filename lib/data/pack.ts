import { LockstepError } from "#lib/core/errors/index";

/** Rows of equal length, cut from documents laid end to end. */
export interface PackedBlocks {
  /** int32 [numBlocks, sequenceLength], row-major. */
  readonly tokens: Int32Array;
  readonly numBlocks: number;
  readonly sequenceLength: number;
  /** Tokens of the last, incomplete block. */
  readonly droppedTokens: number;
}

/** A row of T tokens predicts T - 1 of them. */
export const minSequenceLength = 2;

/**
 * Lays documents end to end, a separator after each, and cuts the result into blocks, as the
 * `group_texts` of Hugging Face's language modelling example does; the remainder is dropped.
 *
 * @param separatorTokenId null: no separator
 * @throws E_SEQUENCE_LENGTH
 */
export function packDocuments(
  documents: readonly Int32Array[],
  options: { sequenceLength: number; separatorTokenId: number | null },
): PackedBlocks {
  const { sequenceLength, separatorTokenId } = options;
  checkSequenceLength(sequenceLength);
  const separatorLength = separatorTokenId === null ? 0 : 1;
  const numTokens = documents.reduce((sum, { length }) => sum + length + separatorLength, 0);
  const numBlocks = Math.floor(numTokens / sequenceLength);
  const tokens = new Int32Array(numBlocks * sequenceLength);
  let offset = 0;
  for (const document of documents) {
    const room = tokens.length - offset;
    tokens.set(document.length <= room ? document : document.subarray(0, room), offset);
    offset += Math.min(document.length, room);
    if (separatorTokenId !== null && offset < tokens.length) tokens[offset++] = separatorTokenId;
  }
  return { tokens, numBlocks, sequenceLength, droppedTokens: numTokens - tokens.length };
}

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
