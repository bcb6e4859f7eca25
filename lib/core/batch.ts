import { LockstepError } from "#lib/core/errors/index";
import type { BatchCoordinates } from "./dropout.js";

/** A target that does not count. */
export const ignoredTarget = -100;

export type FieldArray = Int32Array | Float32Array;

/** What a batch carries under one name; a job declares its fields once. */
export interface BatchField {
  readonly name: string;
  readonly dtype: "int32" | "float32";
  /** Values of a row: one a token, or so many. */
  readonly perRow: "token" | number;
}

/** Rows in static shape: [numRows, values of a row] under each name, row-major. */
export interface Batch {
  readonly numRows: number;
  readonly fields: Readonly<Record<string, FieldArray>>;
  /** Of a job with several tasks: whose rows these are, by its place among them. @default 0 */
  readonly task?: number;
  /** Of a micro-batch of training. */
  readonly coordinates?: BatchCoordinates;
}

const perToken = (name: string): BatchField => ({ name, dtype: "int32", perRow: "token" });

const tokens = perToken("tokens");
/**
 * Where several examples share a row, or padding must not be seen: the example of each token, from 1 (0 is
 * padding), to which alone it attends, and its position in it, from 0.
 */
const segments: readonly BatchField[] = [perToken("segments"), perToken("positions")];
/** 1 for the tokens of the second text of a pair. */
const tokenTypes = perToken("tokenTypes");

/** Tokens of each row without padding, where noise depends on them. */
export const lengthField: BatchField = { name: "lengths", dtype: "int32", perRow: 1 };

/** The token that follows each token, {@link ignoredTarget} where it is not learnt: shifted already. */
export const nextTokenField = perToken("targets");

/** 1 for a row, {@link ignoredTarget} for padding: beside targets that may be below 0 themselves. */
export const countedField: BatchField = { name: "counted", dtype: "int32", perRow: 1 };

/** Of rows that are pairs of sequences: `tokens` and the next tokens are the chosen one's, these the rejected one's. */
export const rejectedTokensField = perToken("rejectedTokens");
export const rejectedTargetsField = perToken("rejectedTargets");
/** Tokens of the chosen and of the rejected sequence without padding. */
export const pairLengthsField: BatchField = { name: "pairLengths", dtype: "int32", perRow: 2 };
/** By how much the chosen sequence of a pair is to be better than the other. */
export const marginField: BatchField = { name: "margin", dtype: "float32", perRow: 1 };

/** Pairs of a batch: those whose chosen sequence has tokens. */
export const countPairs = (lengths: ArrayLike<number> = []): number =>
  Array.from(lengths).filter((length, i) => i % 2 === 0 && length > 0).length;

/** The fields that a model reads. */
export const inputFields = ({
  hasSegments = false,
  hasTokenTypes = false,
}: {
  readonly hasSegments?: boolean;
  readonly hasTokenTypes?: boolean;
} = {}): readonly BatchField[] => [
  tokens,
  ...(hasSegments ? segments : []),
  ...(hasTokenTypes ? [tokenTypes] : []),
];

export const hasField = (fields: readonly BatchField[], name: string): boolean =>
  fields.some((field) => field.name === name);

/** @param rowLength tokens of a row */
export const valuesPerRow = ({ perRow }: BatchField, rowLength: number): number =>
  perRow === "token" ? rowLength : perRow;

export const fieldArray = ({ dtype }: BatchField, size: number): FieldArray =>
  dtype === "int32" ? new Int32Array(size) : new Float32Array(size);

/** A field of whole numbers. @throws RangeError where the batch has none */
export function integerField({ fields }: Batch, name: string): Int32Array {
  const values = fields[name];
  if (values instanceof Int32Array) return values;
  throw new RangeError(`The batch has no int32 field ${name}`);
}

/**
 * Checks that a batch carries what a job declares, and nothing else.
 *
 * @param rowLength tokens of a row
 * @throws E_MESSAGE_INVALID
 */
export function checkBatch(batch: Batch, declared: readonly BatchField[], rowLength: number): void {
  const refuse = (field: string, reason: string): never => {
    throw new LockstepError("E_MESSAGE_INVALID", { message: "Batch", field, reason });
  };
  for (const field of declared) {
    const values = batch.fields[field.name];
    const size = batch.numRows * valuesPerRow(field, rowLength);
    if (values === undefined) refuse(field.name, "is missing");
    else if (values.length !== size) refuse(field.name, `has ${values.length} values, not ${size}`);
    else if (dtypeOf(values) !== field.dtype) refuse(field.name, `is not ${field.dtype}`);
  }
  const other = Object.keys(batch.fields).find((name) => !hasField(declared, name));
  if (other !== undefined) refuse(other, "is not declared by the job");
}

/** Targets that count: those that are not below 0. */
export function countTargets(values: ArrayLike<number> = []): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if ((values[i] ?? -1) >= 0) count++;
  return count;
}

export const dtypeOf = (values: FieldArray): BatchField["dtype"] =>
  values instanceof Int32Array ? "int32" : "float32";
