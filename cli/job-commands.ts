import type { Job } from "#lib/queue/job";
import type { JobQueue } from "#lib/queue/job-queue";
import { readCommandLine, usageOf } from "./command-line.js";
import { openQueueFor, queueOptions, words } from "./queue-options.js";

/** `lockstep cancel ID ...` and its siblings. */
type JobCommand = (args: readonly string[]) => Promise<number>;

interface JobAction {
  readonly name: string;
  readonly act: (queue: JobQueue, id: string) => Promise<Job>;
  /** What became of it, after its id. */
  readonly told: (job: Job) => string;
}

const asksAgent = (what: string) => (job: Job) =>
  job.state === "running" ? `agent ${job.owner?.agent} is asked to ${what}` : `is ${job.state}`;

export const cancelCommand = jobCommand({
  name: "cancel",
  act: (queue, id) => queue.ask(id, "cancel"),
  told: asksAgent("cancel it, after its step"),
});

export const pauseCommand = jobCommand({
  name: "pause",
  act: (queue, id) => queue.ask(id, "pause"),
  told: asksAgent("stop it, after its step and with a checkpoint"),
});

export const resumeCommand = jobCommand({
  name: "resume",
  act: (queue, id) => queue.resume(id),
  told: ({ state }) => (state === "running" ? "goes on running" : `is ${state}`),
});

export const checkpointCommand = jobCommand({
  name: "checkpoint",
  act: (queue, id) => queue.askSave(id),
  told: asksAgent("save a checkpoint, after its step"),
});

function jobCommand({ name, act, told }: JobAction): JobCommand {
  return async (args) => {
    const usage = usageOf(name);
    const { values, positionals } = readCommandLine(args, queueOptions, usage);
    const ids = words(positionals);
    if (ids.length === 0) usage("no job is named");
    const queue = await openQueueFor(values, usage, "submitter");
    try {
      for (const id of ids) {
        const job = await act(queue, id);
        const line = values.json ? JSON.stringify(job) : `${id} ${told(job)}`;
        process.stdout.write(`${line}\n`);
      }
      return 0;
    } finally {
      await queue.close();
    }
  };
}
