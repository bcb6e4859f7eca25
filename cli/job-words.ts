import { printable } from "#lib/core/terminal-text";
import { formatFigure } from "#lib/core/format";
import type { JobView } from "#lib/queue/job-queue";

const titles = ["ID", "STATE", "PRIORITY", "STEP", "NAME", "AGENT", "WHAT"] as const;

/** A table of jobs, a line each. */
export function jobTable(views: readonly JobView[]): string[] {
  const rows = [titles, ...views.map(cells)];
  const widths = titles.map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

function cells(view: JobView): readonly string[] {
  const { job, beat } = view;
  const step = Math.max(job.step, beat?.step ?? 0);
  const total = beat?.totalSteps ?? null;
  const steps = total === null ? (step === 0 ? "" : String(step)) : `${step}/${total}`;
  const agent = job.state === "running" ? (job.owner?.agent ?? "") : "";
  return [
    ...[job.id, job.state, String(job.priority), steps],
    ...[shortened(printable(job.name)), shortened(printable(agent))],
    what(view),
  ];
}

/** One long name leaves no place for what the others came to. */
const maxCellChars = 40;
const shortened = (text: string): string =>
  text.length <= maxCellChars ? text : `${text.slice(0, maxCellChars - 1)}\u2026`;

/** Why a job is where it is, in a few words. */
function what({ job, beat, waitsFor, triedAgainAt }: JobView): string {
  if (job.state === "running") {
    const loss = beat?.loss ?? null;
    const words = [
      ...(job.asked === null ? [] : [`${job.asked} is asked for`]),
      ...(loss === null ? [] : [`loss ${formatFigure(loss, 4)}`]),
      ...(job.tries > 1 ? [`try ${job.tries} of ${job.maxTries}`] : []),
    ];
    return words.join(", ");
  }
  if (job.state === "queued" && waitsFor.length > 0) {
    return `waits for ${waitsFor.map(({ id, state }) => `${id} (${state})`).join(", ")}`;
  }
  if (job.state === "done") return job.outputDir;
  const error = job.error === null ? "" : printable(job.error).replaceAll(/\s+/g, " ");
  const next = `try ${job.tries + 1} of ${job.maxTries}`;
  const again =
    triedAgainAt === undefined
      ? ""
      : triedAgainAt.getTime() <= Date.now()
        ? `${next} is due: `
        : `${next} at ${triedAgainAt.toISOString().slice(11, 19)} UTC: `;
  return `${again}${error.slice(0, 120)}`;
}
