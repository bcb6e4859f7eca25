import { ignoredTarget } from "#lib/core/batch";
import type { LockstepError } from "#lib/core/errors/index";
import type { LengthFigures, PreparedDataset, PreviewRow, SourceCount } from "#lib/data/index";

// One object a line; docs/data.md tells of the fields.

export function rowJson({ split, row, pieces, label, rejected, ...sequence }: PreviewRow): string {
  return JSON.stringify({
    type: "row",
    split,
    row: row + 1,
    examples: pieces.map((piece) => ({
      place: piece.place,
      format: piece.format ?? null,
      first_token: piece.offset,
      num_tokens: piece.length,
      tokens_before: piece.before,
      tokens_cut: piece.numCut,
      cut_text: piece.cutText,
    })),
    ...(label === undefined ? {} : labelJson(label)),
    ...(rejected === undefined
      ? sequenceJson(sequence, label !== undefined)
      : { chosen: sequenceJson(sequence), rejected: sequenceJson(rejected) }),
  });
}

function sequenceJson(
  { ids, isLearnt, weights, texts, numPadding }: NonNullable<PreviewRow["rejected"]>,
  isLabelled = false,
): Readonly<Record<string, unknown>> {
  return {
    text: texts.map((each) => each.text).join(""),
    tokens: texts.flatMap((each) => [
      each.text,
      ...Array.from({ length: each.count - 1 }, () => ""),
    ]),
    input_ids: [...ids],
    labels: Array.from(ids, (id, i) => (isLearnt[i] === true ? id : ignoredTarget)),
    ...(weights === undefined ? {} : weightsJson(weights, !isLabelled)),
    num_padding: numPadding,
  };
}

/** `weights` of tokens, or the `weight` of a labelled row. */
const weightsJson = (
  weights: readonly number[],
  areOfTokens: boolean,
): Readonly<Record<string, unknown>> => (areOfTokens ? { weights } : { weight: weights[0] });

function labelJson(label: NonNullable<PreviewRow["label"]>): Readonly<Record<string, unknown>> {
  if (!("values" in label)) return { label: label.name, class: label.number };
  return { label: label.values.length === 1 ? label.values[0] : label.values };
}

export const rejectedJson = ({ code, message }: LockstepError): string =>
  JSON.stringify({ type: "rejected", code, message });

export function summaryJson(
  dataset: PreparedDataset,
  read: {
    readonly sources: readonly SourceCount[];
    readonly numRejected: number;
    readonly lengths: LengthFigures | undefined;
    readonly totalSteps: number;
  },
): string {
  const { layout, classes, train, validation } = dataset;
  const side = ({ rows, report }: PreparedDataset["train"]): unknown => ({
    examples: report.numExamples,
    rows: report.numRows,
    row_tokens: rows.sequenceLength,
    tokens: report.rowTokens,
    learnt: report.supervisedTokens,
    examples_cut: report.truncatedExamples,
    tokens_cut: report.truncatedTokens,
    tokens_left_over: report.droppedTokens - report.truncatedTokens,
  });
  const { lengths } = read;
  return JSON.stringify({
    type: "summary",
    sources: read.sources.map(({ source, format, numRows, numBlank }) => ({
      ...{ source, format: format ?? null, rows: numRows, blank: numBlank },
    })),
    rejected: read.numRejected,
    layout,
    ...(classes === undefined
      ? {}
      : { [classes.areNumbers === true ? "outputs" : "classes"]: classes.names }),
    train: side(train),
    validation: validation === undefined ? null : side(validation),
    steps: read.totalSteps,
    lengths:
      lengths === undefined
        ? null
        : {
            shortest: lengths.shortest,
            mean: lengths.mean,
            longest: lengths.longest,
            percentiles: Object.fromEntries(lengths.percentiles),
            histogram: lengths.histogram.map(({ upTo, count }) => ({ up_to: upTo, count })),
          },
  });
}
