import { type Batch, inputFields } from "#lib/core/batch";
import type { Classes } from "#lib/core/labels";
import { type Examples, rowTotals, spreadEvenly, type TracedRows } from "./rows.js";
import type { TokenStore } from "./token-store.js";

/** Rows are padded to a multiple of it: vector instructions take so many values at once. */
const lengthMultiple = 8;

/** Texts with a label each; tokens of a second text are stored as their complement (~id). */
interface LabelledExamples extends Examples {
  /** By number, as the classes know them. */
  readonly labels: Int32Array;
  /** Of each, tokens that are not in the store. */
  readonly cutTokens: Int32Array;
}

/** The length that holds every example, no longer than the longest that is allowed. */
export function labelledLength(sides: readonly Examples[], maxLength: number): number {
  let longest = 1;
  for (const { lengths } of sides)
    for (const length of lengths) longest = Math.max(longest, length);
  return Math.min(Math.ceil(longest / lengthMultiple) * lengthMultiple, maxLength);
}

/** A text, or a pair of texts, a row. */
export function labelledRows(
  store: TokenStore,
  { starts, lengths, labels, cutTokens }: LabelledExamples,
  options: {
    readonly classes: Classes;
    readonly sequenceLength: number;
    readonly hasTokenTypes: boolean;
    readonly paddingTokenId: number;
    readonly maxRows?: number | null | undefined;
  },
): TracedRows {
  const { classes, sequenceLength, hasTokenTypes, paddingTokenId } = options;
  const kept = spreadEvenly(lengths.length, options.maxRows);
  const exampleOf = (row: number): number => kept[row] ?? 0;
  const lengthOf = (row: number): number => lengths[exampleOf(row)] ?? 0;
  const targetsOf = (row: number): Batch["fields"] =>
    classes.targetsOf(labels[exampleOf(row)] ?? -1) ?? {};
  return {
    ...rowTotals(kept.length, lengthOf, lengths),
    sequenceLength,
    inputs: inputFields({ hasSegments: true, hasTokenTypes }),
    targets: classes.fields,
    paddingTokenId,
    lengthOf,
    lossWeight: () => 1,
    targetsOf,
    piecesOf: (row) => [
      {
        ...{ example: exampleOf(row), offset: 0, length: lengthOf(row), before: 0 },
        numCut: cutTokens[exampleOf(row)] ?? 0,
      },
    ],
    // They never came into the store.
    readCut: () => new Int32Array(0),
    write(row, into) {
      const tokens = into.tokens.subarray(0, lengthOf(row));
      store.read(starts[exampleOf(row)] ?? 0, tokens);
      for (let i = 0; i < tokens.length; i++) {
        const value = tokens[i] ?? 0;
        if (value >= 0) continue;
        tokens[i] = ~value;
        if (into.tokenTypes !== undefined) into.tokenTypes[i] = 1;
      }
      into.segments?.fill(1, 0, tokens.length);
      if (into.positions !== undefined) {
        for (let i = 0; i < tokens.length; i++) into.positions[i] = i;
      }
      for (const [name, values] of Object.entries(targetsOf(row))) {
        into.targets[name]?.set(values);
      }
    },
  };
}
