import type { RowPrecision } from "./precision.js";
import type { Experiment } from "./experiment.js";
import { barText } from "./report.js";

const options = `npm run bench -- [NAME ...] [options]

Measures Lockstep beside what people use today: ours and the peer take turns, each in a fresh process.

  NAME          an experiment or a row; all of them by default
  --pairs N     pairs of processes; 5 by default, fewer only to try something out
  --json        a line of JSON a row instead of the table
  --record      also writes bench/results/NAME_HARDWARE_DATE.md
  --prefix CMD  put before each measuring process: "taskset -c 0,1", a lock on a shared machine
  --help        this

The table shows the medians of ours and of the peer, and ours / peer: at most its bar for seconds and
memory, at least its bar for rates. A row fails too if both sides did not compute the same numbers. The exit
status is 1 if a row does not hold. docs/benchmarks.md says what each row is.
`;

/** What `--help` prints: the options, and the rows with their bars on this processor. */
export function helpText(precision: RowPrecision, experiments: readonly Experiment[]): string {
  const rows = experiments.flatMap((experiment) =>
    experiment.rows.map((row) => [experiment.name, row.name, barText(row)] as const),
  );
  const widths = [0, 1].map((column) =>
    Math.max(...rows.map((row) => (row[column as 0 | 1] as string).length)),
  ) as [number, number];
  const lines = rows.map(
    ([name, row, bar]) => `  ${name.padEnd(widths[0])}  ${row.padEnd(widths[1])}  ${bar}`,
  );
  return `${options}\nExperiments, rows and bars on this processor, in ${precision}:\n\n${lines.join("\n")}\n`;
}
