import {
  type BatchField,
  inputFields,
  marginField,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import { type Examples, rowTotals, spreadEvenly, type TracedRows } from "./rows.js";
import { minSequenceLength } from "./sequence-length.js";
import type { TokenStore } from "./token-store.js";

/** Rows are padded to a multiple of it: vector instructions take so many values at once. */
const lengthMultiple = 8;

/** Pairs as a store holds them: the chosen sequence, then the rejected one; what is not learnt as its complement. */
interface PairedExamples extends Examples {
  readonly chosenLengths: Int32Array;
  readonly margins: Float64Array;
  /** Of each, tokens that are not in the store. */
  readonly cutTokens: Int32Array;
}

/** The length that holds every sequence, no longer than the longest that is allowed. */
export function pairedLength(sides: readonly PairedExamples[], maxLength: number): number {
  let longest = minSequenceLength;
  for (const { lengths, chosenLengths } of sides) {
    for (const [i, length] of lengths.entries()) {
      const chosen = chosenLengths[i] ?? 0;
      longest = Math.max(longest, chosen, length - chosen);
    }
  }
  return Math.min(Math.ceil(longest / lengthMultiple) * lengthMultiple, maxLength);
}

/** A pair a row: the model's own tokens are the chosen sequence, the rejected one stands among the targets. */
export function pairedRows(
  store: TokenStore,
  { starts, lengths, chosenLengths, margins, cutTokens }: PairedExamples,
  options: {
    /** What a batch carries beside the chosen sequences. */
    readonly targets: readonly BatchField[];
    readonly sequenceLength: number;
    readonly paddingTokenId: number;
    readonly maxRows?: number | null | undefined;
  },
): TracedRows {
  const { targets, sequenceLength, paddingTokenId } = options;
  const kept = spreadEvenly(lengths.length, options.maxRows);
  const exampleOf = (row: number): number => kept[row] ?? 0;
  const lengthOf = (row: number): number => lengths[exampleOf(row)] ?? 0;
  const chosenOf = (row: number): number => chosenLengths[exampleOf(row)] ?? 0;
  return {
    ...rowTotals(kept.length, lengthOf, lengths),
    ...{ sequenceLength, sequencesPerRow: 2 },
    inputs: inputFields(),
    targets,
    paddingTokenId,
    lengthOf,
    longestOf: (row) => Math.max(chosenOf(row), lengthOf(row) - chosenOf(row)),
    lossWeight: () => 1,
    piecesOf: (row) => [
      {
        ...{ example: exampleOf(row), offset: 0, length: chosenOf(row), before: 0 },
        numCut: cutTokens[exampleOf(row)] ?? 0,
      },
    ],
    // They never came into the store.
    readCut: () => new Int32Array(0),
    write(row, into) {
      const chosen = chosenOf(row);
      const start = starts[exampleOf(row)] ?? 0;
      const { [rejectedTokensField.name]: rejectedTokens } = into.targets;
      const sides = [
        [start, chosen, into.tokens, into.targets[nextTokenField.name]],
        [
          start + chosen,
          lengthOf(row) - chosen,
          rejectedTokens,
          into.targets[rejectedTargetsField.name],
        ],
      ] as const;
      rejectedTokens?.fill(paddingTokenId);
      for (const [from, length, tokens, next] of sides) {
        if (!(tokens instanceof Int32Array)) continue;
        const own = tokens.subarray(0, length);
        store.read(from, own);
        for (let i = 0; i < length; i++) {
          const value = own[i] ?? 0;
          if (value < 0) own[i] = ~value;
          else if (i > 0 && next !== undefined) next[i - 1] = value;
        }
      }
      into.targets[pairLengthsField.name]?.set([chosen, lengthOf(row) - chosen]);
      into.targets[marginField.name]?.set([margins[exampleOf(row)] ?? 0]);
    },
  };
}
