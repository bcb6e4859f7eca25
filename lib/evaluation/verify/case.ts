import { LockstepError } from "#lib/core/errors/index";

/** What transformers was given and what it gave: the case.json of scripts/make_case.py. */
export interface ReferenceCase {
  readonly numRows: number;
  /** Tokens of a row, padding included. */
  readonly rowLength: number;
  /** [B, T], row-major. */
  readonly tokens: Int32Array;
  /** [B, T], 1 for a token and 0 for padding. */
  readonly attentionMask: Int32Array;
  /** Token ids [B, T] that are not shifted, class ids [B], or numbers [B] or [B, L]. */
  readonly labels: readonly number[];
  /** Numbers a row that `labels` has. */
  readonly labelsPerRow: number;
  readonly loss: number;
  readonly greedy: { readonly prompt: Int32Array; readonly continuation: Int32Array } | undefined;
}

type Json = Readonly<Record<string, unknown>>;

const isRecord = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** @throws E_CASE_INVALID */
export function parseCase(file: string, json: unknown): ReferenceCase {
  const fail = (problem: string): never => {
    throw new LockstepError("E_CASE_INVALID", { file, problem });
  };
  if (!isRecord(json)) return fail("it is not an object");
  const tokens = matrix(json["input_ids"]) ?? fail("input_ids are not rows of equal length");
  const mask = matrix(json["attention_mask"]) ?? fail("attention_mask is not rows of equal length");
  const [numRows, rowLength] = [tokens.length, (tokens[0] as readonly number[]).length];
  if (mask.length !== numRows || mask[0]?.length !== rowLength) {
    fail("attention_mask and input_ids differ in shape");
  }
  if (![...tokens.flat(), ...mask.flat()].every(isId)) fail("token ids are not whole numbers");
  const labels = matrix(json["labels"]) ?? column(json["labels"]) ?? fail("labels are not numbers");
  if (labels.length !== numRows) fail("labels and input_ids differ in rows");
  const loss = json["loss"];
  if (typeof loss !== "number") return fail("loss is not a number");
  return Object.freeze({
    numRows,
    rowLength,
    tokens: Int32Array.from(tokens.flat()),
    attentionMask: Int32Array.from(mask.flat()),
    labels: labels.flat(),
    labelsPerRow: (labels[0] as readonly number[]).length,
    loss,
    greedy: parseGreedy(json["greedy"], fail),
  });
}

function parseGreedy(value: unknown, fail: (problem: string) => never): ReferenceCase["greedy"] {
  if (value === undefined) return undefined;
  const ids = (key: string): Int32Array => {
    const list = isRecord(value) ? value[key] : undefined;
    return Array.isArray(list) && list.length > 0 && list.every(isId)
      ? Int32Array.from(list as number[])
      : fail(`greedy has no ${key}`);
  };
  return { prompt: ids("prompt"), continuation: ids("continuation") };
}

const isId = (value: unknown): boolean =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 2 ** 31;

/** Rows of numbers of one length, at least one. */
function matrix(value: unknown): readonly (readonly number[])[] | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const width = Array.isArray(value[0]) ? value[0].length : 0;
  const isMatrix = value.every(
    (row) =>
      Array.isArray(row) && row.length === width && row.every((item) => typeof item === "number"),
  );
  return isMatrix && width > 0 ? (value as number[][]) : undefined;
}

function column(value: unknown): readonly (readonly number[])[] | undefined {
  if (!Array.isArray(value)) return undefined;
  return matrix(value.map((item: unknown) => [item]));
}
