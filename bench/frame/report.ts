import type { Row, RowResult } from "./experiment.js";

const sign = { "at most": "<=", "at least": ">=" } as const;

/** One line of JSON. Without a peer the ratio is ours itself, in the row's unit. */
export function jsonLine({ row, ours, peer, ratio, holds, problem }: RowResult): string {
  const reason = problem === undefined ? {} : { problem };
  return JSON.stringify({ name: row.name, ours, peer, ratio, bar: row.bar, holds, ...reason });
}

export const markdownRow = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

/** A Markdown table, aligned for a terminal too. */
export function table(results: readonly RowResult[]): string {
  const cells = [
    ["name", "work", "ours", "peer", "ratio", "bar", "holds"],
    ...results.map(({ row, ours, peer, ratio, holds }) => [
      row.name,
      row.what,
      quantity(ours, row.unit),
      row.withoutPeer === true ? "" : quantity(peer, row.unit),
      row.withoutPeer === true ? "" : digits(ratio),
      barText(row),
      holds ? "yes" : "**no**",
    ]),
  ];
  const widths = (cells[0] as string[]).map((_, column) =>
    Math.max(...cells.map((line) => (line[column] as string).length)),
  );
  const lines = cells.map((line) =>
    markdownRow(line.map((cell, column) => cell.padEnd(widths[column] as number))),
  );
  lines.splice(1, 0, `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`);
  const problems = results.flatMap(({ row, problem }) =>
    problem === undefined ? [] : [`\n${row.name}: ${problem}`],
  );
  return [...lines, ...problems].join("\n");
}

/** "<= 0.72", with a unit where the bar is absolute. */
export const barText = ({ direction, bar, unit, withoutPeer }: Row): string =>
  `${sign[direction]} ${bar}${withoutPeer === true ? ` ${unit}` : ""}`;

/** A file of bench/results. */
export function resultsPage(
  results: readonly RowResult[],
  environment: readonly string[],
  date: string,
  numPairs: number,
): string {
  const samples = results.map(({ row, samples: pairs }) => {
    const shown = pairs.map(
      ([ours, peer]) => digits(ours) + (peer === null ? "" : ` : ${digits(peer)}`),
    );
    return `- ${row.name}: ${shown.join(", ")}`;
  });
  return [
    `# Benchmarks, ${date}`,
    "",
    ...environment.map((line) => `- ${line}`),
    `- medians of ${numPairs} pairs of fresh processes, interleaved (ours, peer, ours, peer, ...)`,
    "",
    table(results),
    "",
    "Each pair, ours : peer:",
    "",
    ...samples,
    "",
  ].join("\n");
}

const digits = (value: number | null): string =>
  value === null ? "-" : value >= 100 ? value.toFixed(0) : value.toPrecision(3);
const quantity = (value: number | null, unit: string): string =>
  value === null ? "-" : `${digits(value)} ${unit}`;
