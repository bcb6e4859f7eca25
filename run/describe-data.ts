import { counted, withCommas } from "#lib/core/format";
import type { Classes } from "#lib/core/labels";
import type { PreparationReport, PreparedDataset } from "#lib/data/index";

const maxListedClasses = 10;

function describeClasses({ names, areNumbers = false }: Classes): string {
  if (areNumbers) return `with ${counted(names.length, "number")} each`;
  const listed = names.slice(0, maxListedClasses).join(", ");
  return `in ${names.length} classes (${listed}${names.length > maxListedClasses ? ", ..." : ""})`;
}

/** The figures of one run's data, before it trains. @param of what a line begins with: "general " */
export function describeData(dataset: PreparedDataset, of = ""): string[] {
  return [
    ...describeSides(dataset, of),
    ...(dataset.rejectedExamples === 0
      ? []
      : [
          `${counted(dataset.rejectedExamples, `${of}bad row`)} left out:`,
          ...dataset.listedRejections.map((message) => `  ${message}`),
        ]),
  ];
}

const leftOut = (
  { count, first }: PreparedDataset["blankTexts"],
  noun: string,
  what = "",
): readonly string[] =>
  count === 0 ? [] : [`${counted(count, noun)}${what} left out, the first at ${first}`];

/** What there is to learn on both sides. */
export function describeSides(dataset: PreparedDataset, of = ""): string[] {
  const rowKinds = {
    wrapped: "laid end to end",
    padded: "a row each",
    packed: "packed into rows that they share",
    paired: `in pairs, ${counted(dataset.train.rows.sequenceLength, "token")} at most each`,
    labelled: `${dataset.classes === undefined ? "" : describeClasses(dataset.classes)}, ${counted(dataset.train.rows.sequenceLength, "token")} at most`,
  };
  const side = (name: string, report: PreparationReport): string => {
    const { numExamples, numRows, rowTokens, supervisedTokens, droppedTokens } = report;
    const cut =
      report.truncatedExamples === 0
        ? ""
        : `; ${withCommas(report.truncatedExamples)} too long, ${counted(report.truncatedTokens, "token")} cut off`;
    const dropped = droppedTokens - report.truncatedTokens;
    return (
      `${name}: ${counted(numExamples, "example")} ${rowKinds[dataset.layout]}, ` +
      `${counted(numRows, "row")}, ${counted(rowTokens, "token")}` +
      `${dataset.layout === "labelled" || dataset.layout === "paired" ? "" : `, ${withCommas(supervisedTokens)} supervised`}` +
      `${cut}${dropped > 0 ? `; ${counted(dropped, "token")} left over` : ""}`
    );
  };
  return [
    ...dataset.notes,
    side(`${of}training`, dataset.train.report),
    ...(dataset.validation === undefined
      ? []
      : [side(`${of}validation`, dataset.validation.report)]),
    ...leftOut(dataset.blankTexts, "blank text"),
    ...leftOut(dataset.weightless, "row", " of the weight 0"),
  ];
}
