import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { thisProcess } from "#lib/core/process-identity";
import type { JobOwner } from "#lib/queue/job";
import { JobQueue } from "#lib/queue/job-queue";
import type { RecordStore } from "#lib/queue/record-store";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";
import { fields, queueSuite } from "./suite.js";

const withServer = needs("natsServer");
type Nats = Awaited<ReturnType<typeof startNats>>;
let nats: Nats;
before(async () => {
  if (withServer.skip === undefined) nats = await startNats();
});
after(() => nats?.close());

/** What the bucket of jobs is to JetStream. */
const stream = "KV_lockstep-jobs";

const link = ({ settings }: Nats): Promise<NatsLink> =>
  NatsLink.open(settings, { role: "agent", name: "test", onNews: () => {} });

async function openStore(at: Nats): Promise<RecordStore> {
  return NatsRecordStore.open(await link(at));
}

const owner = (): JobOwner => ({
  ...{ agent: "a", instance: randomUUID(), host: "here", process: thisProcess(), leaseMs: 60_000 },
});

queueSuite(
  "NATS",
  {
    fresh: async () => {
      const connection = await link(nats);
      const manager = await connection.manager();
      const { streams } = manager;
      if ((await streams.names().next()).includes(stream)) await streams.purge(stream);
      await connection.close();
      return () => openStore(nats);
    },
  },
  withServer,
);

test("a server that is killed and started again has every job", withServer, async () => {
  const own = await startNats();
  try {
    const [server] = own.servers;
    assert.ok(server !== undefined);
    const queue = new JobQueue(await openStore(own), { patienceMs: 60_000 });
    const first = await queue.submit(fields("first"));
    const held = await queue.take(owner(), new AbortController().signal);
    assert.equal(held?.job.id, first.id);
    await server.stop("SIGKILL");
    // Asked for while it is away, carried out once it is there.
    const second = queue.submit(fields("second"));
    const done = held.done({ step: 1, runId: "ab" }, { step: 1, mastersSha256: null });
    await server.start();
    await server.untilReady();
    assert.ok(await done);
    const { id } = await second;
    assert.equal((await queue.find(first.id)).job.state, "done");
    const next = await queue.take(owner(), new AbortController().signal);
    assert.equal(next?.job.id, id);
    await queue.close();
  } finally {
    await own.close();
  }
});

test("of three servers the leader may be killed", withServer, async () => {
  const cluster = await startNats({ count: 3 });
  try {
    const queue = new JobQueue(await openStore(cluster), { patienceMs: 120_000 });
    const before = await queue.submit(fields("before"));
    const { cluster: group, config } = await leaderOf(cluster);
    assert.equal(config.num_replicas, 3);
    const leader = cluster.servers.find(({ name }) => name === group?.leader);
    assert.ok(leader !== undefined);
    const held = await queue.take(owner(), new AbortController().signal);
    await leader.stop("SIGKILL");
    const after = await queue.submit(fields("after"));
    assert.ok(await held?.done({ step: 1, runId: "ab" }, { step: 1, mastersSha256: null }));
    assert.equal((await queue.find(before.id)).job.state, "done");
    const next = await queue.take(owner(), new AbortController().signal);
    assert.equal(next?.job.id, after.id);
    await queue.close();
  } finally {
    await cluster.close();
  }
});

async function leaderOf(at: Nats) {
  const connection = await link(at);
  try {
    return await (await connection.manager()).streams.info(stream);
  } finally {
    await connection.close();
  }
}
