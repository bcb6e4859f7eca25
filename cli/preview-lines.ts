import type { PreviewPiece, PreviewRow } from "#lib/data/index";
import { counted, shownNumber, withCommas } from "#lib/core/format";
import { displayWidth, fit, type Palette } from "#lib/core/terminal-text";
import { quoted, shortened, visible } from "./visible-text.js";

export interface PreviewStyle {
  /** Width of the terminal; infinite elsewhere. */
  readonly columns: number;
  /** With colours learnt tokens are inverted, without them they stand between marks. */
  readonly color: boolean;
  readonly palette: Palette;
  /** Everything, however long. */
  readonly isFull: boolean;
}

/** Characters of a stretch of text that are shown where it is learnt, or not, as a whole. */
const maxStretchCharacters = 600;
const maxCutCharacters = 200;
/** A row of so many tokens is listed as a whole. */
const maxListedTokens = 64;
/** Tokens that are listed at both ends of a longer row, and on both sides of a change in it. */
const [listedAtEnds, listedAtChanges] = [8, 3];

/** Where a line end is learnt and colours show it. */
const lineEnd = "↵";
const invert = (text: string): string => `\u001b[7m${text}\u001b[27m`;

/** What a row is, where it comes from, its text with what is learnt in it, and its tokens. */
export function rowLines(
  row: PreviewRow,
  numRows: number,
  isPacked: boolean,
  style: PreviewStyle,
): string[] {
  const { palette, columns } = style;
  if (row.rejected !== undefined) return pairLines(row, row.rejected, numRows, style);
  const numLearnt = numLearntOf(row);
  const facts = [
    counted(row.ids.length, "token"),
    ...(row.label === undefined ? [`${withCommas(numLearnt)} learnt`] : []),
    ...(row.numPadding === 0 ? [] : [`${withCommas(row.numPadding)} of padding`]),
    ...(isPacked ? [counted(row.pieces.length, "example")] : []),
  ];
  const marks = marksFor(row.texts.map(({ text }) => text).join(""));
  return [
    `${palette.bold(titleOf(row, numRows))}: ${facts.join(", ")}`,
    ...(row.label === undefined ? [] : [learntLabel(row.label, row.weights?.[0])]),
    ...row.pieces.flatMap((piece) => pieceLines(row, piece, marks, style)),
    ...tokenLines(row, style).map((line) =>
      Number.isFinite(columns) ? fit(line, columns - 1) : line,
    ),
    "",
  ];
}

const titleOf = ({ split, row }: PreviewRow, numRows: number): string =>
  `${split === "train" ? "training" : "validation"} row ${withCommas(row + 1)} of ${withCommas(numRows)}`;

const numLearntOf = ({ isLearnt }: Pick<PreviewRow, "isLearnt">): number =>
  isLearnt.filter((learnt) => learnt).length;

/** Both sequences of a pair of answers, one below the other. */
function pairLines(
  row: PreviewRow,
  rejected: NonNullable<PreviewRow["rejected"]>,
  numRows: number,
  style: PreviewStyle,
): string[] {
  const { palette, columns } = style;
  const sequences = [
    ["chosen", row],
    ["rejected", { ...row, ...rejected }],
  ] as const;
  return [
    `${palette.bold(titleOf(row, numRows))}: a pair of answers`,
    ...sequences.flatMap(([name, sequence]) => {
      const marks = marksFor(sequence.texts.map(({ text }) => text).join(""));
      const facts = [
        counted(sequence.ids.length, "token"),
        ...(numLearntOf(sequence) === 0
          ? []
          : [`${withCommas(numLearntOf(sequence))} of the answer`]),
        ...(sequence.numPadding === 0 ? [] : [`${withCommas(sequence.numPadding)} of padding`]),
      ];
      const [place, ...text] = row.pieces.flatMap((piece) =>
        pieceLines(
          sequence,
          // What is told of the row's tokens is of both.
          { ...piece, length: sequence.ids.length, numTokens: 0 },
          marks,
          style,
        ),
      );
      return [
        ...(name === "chosen" ? [place ?? ""] : []),
        `  ${palette.bold(name)}: ${facts.join(", ")}`,
        ...text,
        ...tokenLines(sequence, style).map((line) =>
          Number.isFinite(columns) ? fit(line, columns - 1) : line,
        ),
      ];
    }),
    "",
  ];
}

function learntLabel(label: NonNullable<PreviewRow["label"]>, weight: number | undefined): string {
  const counts = weight === undefined ? "" : `, weight ${shownNumber(weight)}`;
  return `  ${labelText(label)}${counts}`;
}

function labelText(label: NonNullable<PreviewRow["label"]>): string {
  if ("values" in label) {
    const { values } = label;
    return `${values.length === 1 ? "label" : "labels"}, learnt: ${values.map(shownNumber).join(", ")}`;
  }
  const { name, number } = label;
  if (typeof name === "string") return `label, learnt: ${quoted(name)}, class ${String(number)}`;
  const listed = name.map((each, i) => `${quoted(each)}, class ${(number as number[])[i]}`);
  return `labels, learnt: ${listed.join("; ") || "none"}`;
}

function pieceLines(
  row: PreviewRow,
  piece: PreviewPiece,
  marks: readonly [string, string],
  style: PreviewStyle,
): string[] {
  const { palette } = style;
  const { offset, length, before, numTokens, numCut, format } = piece;
  const part =
    before > 0 || before + length + numCut < numTokens
      ? `, its tokens ${withCommas(before)} to ${withCommas(before + length - 1)} of ${withCommas(numTokens)}`
      : "";
  const cut =
    numCut === 0
      ? ""
      : `, ${palette.bad(`the last ${withCommas(numCut)} of ${withCommas(numTokens)} tokens cut off`)}`;
  const stretches: Stretch[] = [];
  for (const { start, count, text } of row.texts) {
    if (start < offset || start >= offset + length) continue;
    const isLearnt = row.isLearnt.slice(start, start + count).includes(true);
    const last = stretches.at(-1);
    if (last?.isLearnt === isLearnt) last.text += text;
    else stretches.push({ text, isLearnt });
  }
  const hasMarks = !style.color && stretches.some(({ isLearnt }) => isLearnt);
  const legend = hasMarks ? `, learnt between ${marks.join(" and ")}` : "";
  const cutText = shortened(
    piece.cutText,
    style.isFull ? Number.POSITIVE_INFINITY : maxCutCharacters,
  )
    .map(({ text }) => text)
    .join("");
  return [
    `  ${palette.accent(visible(piece.place).replaceAll("\n", " "))}${format === undefined ? "" : ` ${format}`}${part}${cut}${legend}`,
    ...textLines(stretches, marks, style),
    ...(cutText === "" ? [] : [`  ${palette.bad("cut off:")} ${palette.dim(quoted(cutText))}`]),
  ];
}

/** Tokens that follow each other and are all learnt, or all not. */
interface Stretch {
  text: string;
  readonly isLearnt: boolean;
}

function textLines(
  stretches: readonly Stretch[],
  [open, close]: readonly [string, string],
  { color, palette, columns, isFull }: PreviewStyle,
): string[] {
  const [bar, continued] = ["  │ ", "  ┊ "];
  // A line end may stand behind the last character.
  const room = Math.max(16, columns - 2 - bar.length);
  const lines: string[] = [bar];
  let width = 0;
  const write = (text: string, paint: (part: string) => string, isInverted = false): void => {
    let part = "";
    const put = (): void => {
      if (part !== "") lines[lines.length - 1] += paint(part);
      part = "";
    };
    for (const character of text) {
      if (character === "\n") {
        // An empty line has nothing else to invert.
        if (color && isInverted) part += lineEnd;
        put();
        lines.push(bar);
        width = 0;
        continue;
      }
      const characterWidth = displayWidth(character);
      if (width + characterWidth > room) {
        put();
        lines.push(continued);
        width = 0;
      }
      part += character;
      width += characterWidth;
    }
    put();
  };
  const same = (text: string): string => text;
  for (const { text, isLearnt } of stretches) {
    const paint = isLearnt && color ? invert : same;
    if (isLearnt && !color) write(open, same);
    const limit = isFull ? Number.POSITIVE_INFINITY : maxStretchCharacters;
    for (const part of shortened(text, limit)) {
      write(visible(part.text), part.isNote ? palette.dim : paint, isLearnt && !part.isNote);
    }
    if (isLearnt && !color) write(close, same);
  }
  return lines;
}

/** A pair of marks that the text does not hold. */
export function marksFor(text: string): readonly [string, string] {
  const isFree = (marks: readonly [string, string]): boolean =>
    marks.every((mark) => !text.includes(mark));
  for (const marks of ["⟦⟧", "⟪⟫", "⦃⦄", "⟬⟭"]) {
    const pair = [marks[0] ?? "", marks[1] ?? ""] as const;
    if (isFree(pair)) return pair;
  }
  for (let i = 1; ; i++) {
    const pair = [`⟦${i}:`, `:${i}⟧`] as const;
    if (isFree(pair)) return pair;
  }
}

/** A line a token; in the middle of a long stretch they are counted. */
function tokenLines(row: PreviewRow, { palette, isFull }: PreviewStyle): string[] {
  const isListed = isFull ? () => true : listed(row);
  const idColumns = Math.max(2, String(row.ids.reduce((most, id) => Math.max(most, id), 0)).length);
  const isLabelled = row.label !== undefined;
  const line = (index: string, id: string, learnt: string, text: string): string =>
    `  ${index.padStart(7)}  ${id.padStart(idColumns)}  ${isLabelled ? "" : `${learnt.padEnd(6)}  `}${text}`;
  const learntTitle = row.weights === undefined ? "learnt" : "weight";
  const lines = [palette.dim(line("token", "id", learntTitle, "text"))];
  let leftOut = 0;
  const count = (): void => {
    if (leftOut > 0) lines.push(palette.dim(line("⋮", "", "", counted(leftOut, "token"))));
    leftOut = 0;
  };
  for (const { start, count: numTokens, text } of row.texts) {
    for (let i = 0; i < numTokens; i++) {
      const index = start + i;
      if (!isListed(index)) {
        leftOut++;
        continue;
      }
      count();
      const weight = row.weights?.[index];
      const isLearnt = row.isLearnt[index] === true;
      const learnt = isLearnt ? (weight === undefined ? "yes" : shownNumber(weight)) : "";
      const part = numTokens === 1 ? "" : ` ${palette.dim(`(${i + 1} of ${numTokens})`)}`;
      lines.push(line(String(index), String(row.ids[index]), learnt, quoted(text) + part));
    }
  }
  count();
  return lines;
}

function listed({ ids, isLearnt, weights, pieces }: PreviewRow): (index: number) => boolean {
  if (ids.length <= maxListedTokens) return () => true;
  const shown = new Uint8Array(ids.length);
  const show = (from: number, to: number): void => void shown.fill(1, Math.max(0, from), to);
  show(0, listedAtEnds);
  show(ids.length - listedAtEnds, ids.length);
  const changes = [
    ...pieces.map(({ offset }) => offset),
    ...isLearnt.flatMap((learnt, i) =>
      i > 0 && (learnt !== isLearnt[i - 1] || weights?.[i] !== weights?.[i - 1]) ? [i] : [],
    ),
  ];
  for (const change of changes) show(change - listedAtChanges, change + listedAtChanges);
  return (index) => shown[index] === 1;
}
