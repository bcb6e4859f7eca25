import { LockstepError } from "#lib/core/errors/index";
import { packBestFit } from "./best-fit.js";
import { exampleRows, type Examples, type TracedRows, wrappedRows } from "./rows.js";
import type { SelectedExamples } from "./selection.js";
import type { TokenStore } from "./token-store.js";

/**
 * How rows come about: texts laid end to end and cut ("wrapped"), one example a row ("padded"), several
 * ("packed"), texts with a class each, or pairs of answers.
 */
export type RowLayout = "wrapped" | "padded" | "packed" | "labelled" | "paired";

/** What became of one side's examples. */
export interface PreparationReport {
  readonly numExamples: number;
  /** Separators included, before anything is cut or dropped. */
  readonly numTokens: number;
  readonly numRows: number;
  /** Tokens in the rows, without padding. */
  readonly rowTokens: number;
  readonly droppedTokens: number;
  /** Targets of one pass over all rows. */
  readonly supervisedTokens: number;
  /** Examples longer than a row, and what was cut off them. Texts that are laid end to end are never cut. */
  readonly truncatedExamples: number;
  readonly truncatedTokens: number;
}

/** The rows of one side. */
export interface PreparedRows {
  readonly rows: TracedRows;
  /** Which examples the rows are made of, among those of both sides in the order of reading. */
  readonly examples: Int32Array;
  readonly report: PreparationReport;
}

/** Rows of examples without labels. */
export function layOut(
  store: TokenStore,
  examples: Examples,
  options: { layout: RowLayout; sequenceLength: number; maxRows: number | null },
): TracedRows {
  const { layout, sequenceLength, maxRows } = options;
  if (layout === "wrapped") return wrappedRows(store, examples, { sequenceLength, maxRows });
  const lengths = examples.lengths.map((length) => Math.min(length, sequenceLength));
  const bins = layout === "packed" ? packBestFit(lengths, sequenceLength) : null;
  return exampleRows(store, examples, { sequenceLength, bins, maxRows });
}

/** @throws E_DATASET_TOO_SMALL where nothing is learnt of any row */
export function reportOf(
  { lengths, cutTokens }: SelectedExamples,
  rows: TracedRows,
  { layout, split }: { layout: RowLayout; split: string },
): PreparationReport {
  const { sequenceLength, numRows } = rows;
  const numTokens = lengths.reduce((sum, length) => sum + length, 0);
  // What was cut while it was tokenised lies in no store; texts that are laid end to end lose nothing.
  const isWhole = layout === "wrapped" || layout === "paired";
  const cut = lengths.map((length, i) => {
    const inStore = isWhole ? 0 : Math.max(0, length - sequenceLength);
    return layout === "wrapped" ? 0 : inStore + (cutTokens[i] ?? 0);
  });
  const tooLong = cut.filter((count) => count > 0);
  let supervisedTokens = 0;
  for (let row = 0; row < numRows; row++) supervisedTokens += rows.lossWeight(row);
  if (supervisedTokens === 0) throw new LockstepError("E_DATASET_TOO_SMALL", { split, numTokens });
  return {
    numExamples: lengths.length,
    numTokens,
    numRows,
    rowTokens: rows.numTokens,
    droppedTokens: rows.droppedTokens + cutTokens.reduce((sum, count) => sum + count, 0),
    supervisedTokens,
    truncatedExamples: tooLong.length,
    truncatedTokens: tooLong.reduce((sum, count) => sum + count, 0),
  };
}
