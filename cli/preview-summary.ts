import type { LengthFigures, PreparedDataset, SourceCount } from "#lib/data/index";
import { bar } from "./progress/frame.js";
import { counted, formatPercent, withCommas } from "#lib/core/format";
import { displayWidth, pad, type Palette, printable, wrap } from "#lib/core/terminal-text";

const barColumns = 24;

interface TextStyle {
  readonly palette: Palette;
  /** Width of the terminal; infinite elsewhere. */
  readonly columns: number;
}

/** A line in as many as the terminal needs. */
function indented(line: string, columns: number): string[] {
  const room = Math.max(20, columns - 3);
  return (displayWidth(line) <= room ? [line] : wrap(line, room)).map((part) => `  ${part}`);
}

const named = (name: string, number: number): string => `${number} ${printable(name)}`;

/** What was read, whatever came of it. */
interface ReadCounts {
  readonly sources: readonly SourceCount[];
  readonly numRejected: number;
  /** The first ones, as code and message. */
  readonly rejected: readonly string[];
}

/** What was read, and what cannot be used. */
export function sourceLines(read: ReadCounts, { palette, columns }: TextStyle): string[] {
  const { sources, numRejected, rejected } = read;
  const cells = sources.map(({ source, format, numRows, numBlank }) => [
    printable(source),
    format ?? "-",
    counted(numRows, "row"),
    numBlank === 0 ? "" : `${counted(numBlank, "blank text")} left out`,
  ]);
  const widths = [0, 1, 2].map((i) => Math.max(0, ...cells.map((row) => (row[i] ?? "").length)));
  return [
    palette.bold("Read"),
    ...cells.map((row) =>
      `  ${row.map((cell, i) => pad(cell, widths[i] ?? 0)).join("  ")}`.trimEnd(),
    ),
    ...(numRejected === 0
      ? []
      : [
          palette.bad(`${counted(numRejected, "row")} cannot be used:`),
          ...rejected.flatMap((message) => indented(printable(message), columns)),
          ...(numRejected > rejected.length
            ? [`  and ${withCommas(numRejected - rejected.length)} more`]
            : []),
        ]),
  ];
}

/** What is made of it. @param sides the lines of both sides, as a run prints them */
export function layoutLines(
  dataset: PreparedDataset,
  sides: readonly string[],
  lengths: LengthFigures | undefined,
  { palette, columns }: TextStyle,
): string[] {
  const { rowTokens, supervisedTokens } = dataset.train.report;
  return [
    palette.bold("Rows"),
    ...sides.flatMap((line) => indented(printable(line), columns)),
    ...(dataset.layout === "labelled"
      ? indented(
          `${dataset.classes?.areNumbers === true ? "outputs" : "classes"}: ${(dataset.classes?.names ?? []).map(named).join(", ")}`,
          columns,
        )
      : dataset.layout === "paired"
        ? []
        : [
            `  learnt: ${formatPercent(supervisedTokens / rowTokens)} of the training rows' tokens`,
          ]),
    ...(lengths === undefined ? [] : ["", ...lengthLines(lengths, { palette, columns })]),
  ];
}

function lengthLines(lengths: LengthFigures, { palette, columns }: TextStyle): string[] {
  const { shortest, longest, mean, percentiles, histogram } = lengths;
  const most = Math.max(...histogram.map(({ count }) => count));
  const figures = [
    `shortest ${withCommas(shortest)}`,
    `mean ${withCommas(mean)}`,
    ...[...percentiles].map(([percent, length]) => `${percent} % up to ${withCommas(length)}`),
    `longest ${withCommas(longest)}`,
  ];
  return [
    palette.bold("Tokens of an example"),
    ...indented(figures.join(", "), columns),
    ...histogram.map(
      ({ upTo, count }) =>
        `  up to ${withCommas(upTo).padStart(9)}  ${bar(count / most, barColumns, palette)} ${withCommas(count)}`,
    ),
  ];
}
