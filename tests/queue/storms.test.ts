import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { startNats } from "#tests/support/nats-server";
import { queueStorm, type StormOutcome } from "#tests/support/queue-storm";
import { needs } from "#tests/support/tools";

// LOCKSTEP_QUEUE_JOBS=50 LOCKSTEP_QUEUE_SEED=7 node scripts/test.mjs queue/storms
const numJobs = Number(process.env["LOCKSTEP_QUEUE_JOBS"] ?? 8);
const seed = Number(process.env["LOCKSTEP_QUEUE_SEED"] ?? 1);
const numAgents = 3;
const patience = { patienceMs: Number.POSITIVE_INFINITY };

/** A storm in which all jobs have to be done once. */
async function weather(
  t: TestContext,
  storm: (directory: string) => Promise<StormOutcome>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-storm-"));
  try {
    const { faults, problems, numTaken, said } = await storm(directory);
    const list = Object.entries(faults).map(([what, count]) => `${what} ${count}`);
    t.diagnostic(`seed ${seed}: ${numJobs} jobs given ${numTaken} times; ${list.join(", ")}`);
    assert.deepEqual(problems, [], said.slice(-200).join("\n"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

test("a directory: each job runs once in effect, whoever is killed or stopped", async (t) => {
  await weather(t, async (directory) => {
    const place = join(directory, "queue");
    const queue = new JobQueue(await DirectoryStore.open(place), patience);
    return queueStorm({ ...{ seed, numJobs, numAgents, place, queue, directory } });
  });
});

for (const count of [1, 3]) {
  test(
    `${count} NATS servers: the same, and servers are killed too`,
    needs("natsServer"),
    async (t) => {
      const nats = await startNats({ count });
      try {
        await weather(t, async (directory) => {
          const options = { role: "submitter", name: "storm", onNews: () => {} } as const;
          const store = await NatsRecordStore.open(await NatsLink.open(nats.settings, options));
          const queue = new JobQueue(store, patience);
          try {
            return await queueStorm({
              ...{ seed, numJobs, numAgents, place: nats.settings.url, queue, directory },
              killServer: async (index) => {
                const server = nats.servers[index % count];
                await server?.stop("SIGKILL");
                await server?.start();
                await server?.untilReady();
              },
            });
          } finally {
            await queue.close();
          }
        });
      } finally {
        await nats.close();
      }
    },
  );
}
