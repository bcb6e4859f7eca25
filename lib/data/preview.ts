import {
  type Batch,
  ignoredTarget,
  integerField,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import type { Classes } from "#lib/core/labels";
import { tokenWeightsField } from "#lib/core/loss-weights";
import type { DatasetFormat } from "./formats/index.js";
import type { DataLedger } from "./ledger.js";
import type { PreparedDataset } from "./prepare.js";
import { gatherBatch } from "./rows.js";
import { type TokenText, tokenTexts } from "./token-texts.js";
import type { Tokenizer } from "./tokenizer.js";

/** Tokens of what was cut off an example that are shown at most. */
const maxCutTokens = 2048;

export type Split = "train" | "validation";

/** A part of a row that is of one example. */
export interface PreviewPiece {
  readonly place: string;
  /** How its example was read, where that is known. */
  readonly format: DatasetFormat | undefined;
  /** Place in the row of its first token. */
  readonly offset: number;
  readonly length: number;
  /** Tokens of the example before it, and in all. */
  readonly before: number;
  readonly numTokens: number;
  /** Tokens that `max_length` cut off the example's end. */
  readonly numCut: number;
  /** Their text, or its beginning; empty where a pair's or a labelled text was cut while it was tokenised. */
  readonly cutText: string;
}

/** Tokens in a row. */
interface PreviewSequence {
  /** Token ids, without padding. */
  readonly ids: Int32Array;
  /** Of each token: whether the loss is over it. None of a labelled row's is. */
  readonly isLearnt: readonly boolean[];
  /** How much each token counts in the loss, 0 where it is not learnt; of a labelled row how much it counts. */
  readonly weights?: readonly number[];
  readonly texts: readonly TokenText[];
  readonly numPadding: number;
}

/** A row of a batch as an engine gets it; of a pair of answers the sequence of the chosen one. */
export interface PreviewRow extends PreviewSequence {
  readonly split: Split;
  /** From 0. */
  readonly row: number;
  readonly pieces: readonly PreviewPiece[];
  /** Of a pair of answers. */
  readonly rejected?: PreviewSequence;
  /** The class that a labelled row has, or its classes, or its numbers. */
  readonly label:
    | { readonly number: number; readonly name: string }
    | { readonly number: readonly number[]; readonly name: readonly string[] }
    | { readonly values: readonly number[] }
    | undefined;
}

/**
 * A row of a prepared data set: what {@link gatherBatch} gives the engine for it, with the texts of its
 * tokens and the places that it comes from.
 *
 * @param ledger what observed the preparation
 */
export async function previewRow(
  dataset: PreparedDataset,
  split: Split,
  row: number,
  { ledger, tokenizer }: { readonly ledger: DataLedger; readonly tokenizer: Tokenizer },
): Promise<PreviewRow> {
  const side = dataset[split];
  if (side === undefined || row < 0 || row >= side.rows.numRows) {
    throw new RangeError(`there is no row ${row} in the ${split} rows`);
  }
  const { rows, examples } = side;
  const batch = gatherBatch(rows, [row], 1);
  const lengths = batch.fields[pairLengthsField.name];
  const weights = batch.fields[tokenWeightsField.name];
  const sequenceOf = async (
    [tokens, next]: readonly [string, string],
    numTokens: number,
  ): Promise<PreviewSequence> => {
    const ids = integerField(batch, tokens).slice(0, numTokens);
    const targets = batch.fields[next];
    return {
      ids,
      // Position i predicts the token at i + 1.
      isLearnt: Array.from(
        ids,
        (_, i) => targets !== undefined && i > 0 && targets[i - 1] !== ignoredTarget,
      ),
      ...(weights === undefined
        ? {}
        : {
            weights: targets === undefined ? [...weights] : [0, ...weights.slice(0, numTokens - 1)],
          }),
      texts: await tokenTexts(tokenizer, ids),
      numPadding: rows.sequenceLength - numTokens,
    };
  };
  const decode = (tokens: Int32Array): Promise<string> =>
    tokenizer.decode(tokens, { skipSpecialTokens: false });
  const pieces: PreviewPiece[] = [];
  for (const piece of rows.piecesOf(row)) {
    const { offset, length, before, numCut } = piece;
    const { place, format, numTokens: ofExample } = ledger.example(examples[piece.example] ?? 0);
    const cutText = numCut === 0 ? "" : await decode(rows.readCut(piece, maxCutTokens));
    pieces.push({ place, format, offset, length, before, numTokens: ofExample, numCut, cutText });
  }
  const rejected = [rejectedTokensField.name, rejectedTargetsField.name] as const;
  return {
    ...{ split, row, pieces },
    ...(await sequenceOf(["tokens", nextTokenField.name], lengths?.[0] ?? rows.lengthOf(row))),
    ...(lengths === undefined ? {} : { rejected: await sequenceOf(rejected, lengths[1] ?? 0) }),
    label: dataset.classes === undefined ? undefined : labelOf(dataset.classes, batch),
  };
}

function labelOf(classes: Classes, { fields }: Batch): NonNullable<PreviewRow["label"]> {
  const shown = classes.shownOf(fields);
  const nameOf = (number: number): string => classes.names[number] ?? String(number);
  if (typeof shown === "number") return { number: shown, name: nameOf(shown) };
  if (classes.areNumbers === true) return { values: shown };
  return { number: shown, name: shown.map(nameOf) };
}

/** Rows that hold a part of an example of this place, in order. */
export function rowsOfPlace(
  dataset: PreparedDataset,
  split: Split,
  ledger: DataLedger,
  isMeant: (place: string) => boolean,
): number[] {
  const side = dataset[split];
  if (side === undefined) return [];
  const isExample = Uint8Array.from(side.examples, (example) =>
    isMeant(ledger.example(example).place) ? 1 : 0,
  );
  const found: number[] = [];
  for (let row = 0; row < side.rows.numRows; row++) {
    if (side.rows.piecesOf(row).some(({ example }) => isExample[example] === 1)) found.push(row);
  }
  return found;
}

/** Whether a place was read at all: it may be in no row that is kept. */
export function isInSide(
  dataset: PreparedDataset,
  split: Split,
  ledger: DataLedger,
  isMeant: (place: string) => boolean,
): boolean {
  return (
    dataset[split]?.examples.some((example) => isMeant(ledger.example(example).place)) === true
  );
}
