import { groupElements } from "./dropout.js";

/** The keys that a query sees by its position: part of `AttentionAttrs`. */
export interface Visibility {
  /** Whether a query sees only keys up to its own position. */
  readonly causal: boolean;
  /** A query at i sees keys with |i - j| < window; 0: all. */
  readonly window: number;
}

/** Most queries of a block, which bounds the scores in memory. */
const maxBlockQueries = 256;
/** Fewest queries of a block in a long row: products of fewer take longer than the keys they skip. */
const minBlockQueries = 64;

/** Keys that no query of a block may see are skipped: four blocks a row skip 3/8 of causal scores. */
function blockQueriesOf(numTokens: number, { causal, window }: Visibility): number {
  if (!causal && window === 0) return maxBlockQueries;
  const quarter = Math.ceil(numTokens / 4 / minBlockQueries) * minBlockQueries;
  return Math.min(maxBlockQueries, quarter);
}

/** Neighbouring queries and the keys that some of them see. */
export interface AttentionBlock {
  readonly start: number;
  readonly numQueries: number;
  /** Keys firstKey to firstKey + numKeys - 1 are seen by some query of the block. */
  readonly firstKey: number;
  readonly numKeys: number;
}

/**
 * How the scores of a row are computed, and in which order the mask of a dropout is drawn.
 *
 * @param queries of the tokens, those that ask; all unless given
 */
export function attentionBlocks(
  numTokens: number,
  attrs: Visibility,
  queries = { start: 0, length: numTokens },
): readonly AttentionBlock[] {
  const { causal, window } = attrs;
  const blockQueries = blockQueriesOf(numTokens, attrs);
  const numBlocks = Math.ceil(queries.length / blockQueries);
  return Array.from({ length: numBlocks }, (_, index) => {
    const start = queries.start + index * blockQueries;
    const numQueries = Math.min(blockQueries, queries.start + queries.length - start);
    const end = start + numQueries;
    const firstKey = window === 0 ? 0 : Math.max(0, start - window + 1);
    const lastKey = window === 0 ? numTokens : Math.min(numTokens, end + window - 1);
    return { start, numQueries, firstKey, numKeys: (causal ? end : lastKey) - firstKey };
  });
}

/**
 * Where the masks of blocks begin, in groups of eight elements: one block's comes behind the other's.
 *
 * @param numHeads query heads of all rows
 */
export function firstMaskGroups(
  blocks: readonly AttentionBlock[],
  numHeads: number,
): readonly number[] {
  let next = 0;
  return blocks.map(({ numQueries, numKeys }) => {
    const first = next;
    next += Math.ceil((numHeads * numQueries * numKeys) / groupElements);
    return first;
  });
}
