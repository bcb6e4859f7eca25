import { counted } from "#lib/core/format";
import { readCommandLine, usageOf } from "./command-line.js";
import { jobTable } from "./job-words.js";
import { openQueueFor, queueOptions } from "./queue-options.js";

/** `lockstep list`. Returns the exit code. */
export async function listCommand(args: readonly string[]): Promise<number> {
  const usage = usageOf("list");
  const options = { ...queueOptions, all: { type: "boolean", default: false } } as const;
  const { values } = readCommandLine(args, options, usage, { allowPositionals: false });
  const queue = await openQueueFor(values, usage, "watcher");
  try {
    const views = await queue.list();
    const shown = values.all
      ? views
      : views.filter(({ job }) => job.state !== "done" && job.state !== "cancelled");
    if (values.json) {
      for (const { job, beat, waitsFor, triedAgainAt } of shown) {
        const line = {
          ...{ ...job, beat: beat ?? null, waitsFor: waitsFor.map(({ id }) => id) },
          triedAgainAt: triedAgainAt?.toISOString() ?? null,
        };
        process.stdout.write(`${JSON.stringify(line)}\n`);
      }
      return 0;
    }
    const hidden = views.length - shown.length;
    if (shown.length > 0) process.stdout.write(`${jobTable(shown).join("\n")}\n`);
    else process.stdout.write(`No job of ${queue.place} waits or runs\n`);
    if (hidden > 0) {
      process.stdout.write(`${counted(hidden, "job")} done or cancelled (--all shows them)\n`);
    }
    return 0;
  } finally {
    await queue.close();
  }
}
