import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { DirectoryStore } from "#lib/queue/directory-store";
import { JobQueue } from "#lib/queue/job-queue";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { startNats } from "#tests/support/nats-server";
import { lockstepCommand } from "#tests/support/lockstep-command";
import {
  queueStorm,
  type StormOutcome,
  type TrainingJobs,
  weightsSha256,
} from "#tests/support/queue-storm";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// LOCKSTEP_QUEUE_JOBS=50 LOCKSTEP_QUEUE_SEED=7 node scripts/test.mjs queue/storms
const numJobs = Number(process.env["LOCKSTEP_QUEUE_JOBS"] ?? 8);
const seed = Number(process.env["LOCKSTEP_QUEUE_SEED"] ?? 1);
const numAgents = 3;
/** Of which so many train: tests/cli/queue.test.ts has one whose agents are killed. */
const numTraining = Math.floor(numJobs / 10);
const patience = { patienceMs: Number.POSITIVE_INFINITY };

let tiny: TinyJob;
let training: TrainingJobs | undefined;

before(async () => {
  tiny = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ sample_prompt: null, eval_on_start: false, eval_on_end: false, metrics_port: null },
    ...{ max_steps: 30, save_strategy: "steps", save_steps: 5, save_total_limit: 2 },
  });
  if (numTraining === 0) return;
  const cache = join(tiny.directory, "cache");
  const { code, stderr } = await lockstepCommand(["train", tiny.configFile], cache);
  assert.equal(code, 0, stderr);
  const sha256 = weightsSha256(join(tiny.directory, "out"));
  assert.ok(sha256 !== undefined);
  const config = await readFile(tiny.configFile, "utf8");
  training = { numJobs: numTraining, config, sha256 };
});

after(() => tiny.remove());

/** A storm in which all jobs have to be done once. */
async function weather(
  t: TestContext,
  storm: (directory: string) => Promise<StormOutcome>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-storm-"));
  try {
    const { faults, problems, numTaken, said } = await storm(directory);
    const list = Object.entries(faults).map(([what, count]) => `${what} ${count}`);
    t.diagnostic(
      `seed ${seed}: ${numJobs} jobs (${numTraining} train) given ${numTaken} times; ${list.join(", ")}`,
    );
    assert.deepEqual(problems, [], said.slice(-200).join("\n"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

test("a directory: each job runs once in effect, whoever is killed or stopped", async (t) => {
  await weather(t, async (directory) => {
    const place = join(directory, "queue");
    const queue = new JobQueue(await DirectoryStore.open(place), patience);
    return queueStorm({ ...{ seed, numJobs, numAgents, place, queue, directory, training } });
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
              ...{ seed, numJobs, numAgents, place: nats.settings.url, queue, directory, training },
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
