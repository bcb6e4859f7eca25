/** An agent whose jobs are those of queued-run. Arguments: a directory or the address of a server, and its name. */
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { QueueAgent } from "#run/queue-agent";
import { natsSettings } from "./nats-server.js";

const [, , place = "", name = "", directory = ""] = process.argv;
const say = (line: string): void => {
  process.stdout.write(`${name} ${line}\n`);
};
const drain = new AbortController();
process.on("SIGTERM", () => drain.abort());

async function openNats(): Promise<NatsRecordStore> {
  for (;;) {
    try {
      const options = { role: "agent", name, onNews: say } as const;
      return await NatsRecordStore.open(await NatsLink.open(natsSettings(place), options));
    } catch (error) {
      say(`tries again: ${String(error)}`);
    }
  }
}

const store = place.startsWith("nats:") ? await openNats() : await DirectoryStore.open(place);
const queue = new JobQueue(store, {
  patienceMs: Number.POSITIVE_INFINITY,
  onNews: say,
  // A try that is killed before its first step makes the next one wait four times as long.
  retryMs: 1,
});
await new QueueAgent(queue, {
  ...{
    name,
    directory,
    leaseMs: 1_500,
    graceMs: 5_000,
    flags: () => [],
    without: new Set<string>(),
  },
  ...{ maxJobs: undefined, untilEmpty: false, onLine: say },
  command: [process.execPath, join(packageRoot, "dist/tests/support/queued-run.js")],
}).run(drain.signal);
await queue.close();
