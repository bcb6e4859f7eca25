import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { thisProcess } from "#lib/core/process-identity";
import type { JobOwner } from "#lib/queue/job";
import { JobQueue } from "#lib/queue/job-queue";
import type { RecordStore } from "#lib/queue/record-store";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { withCode } from "#tests/support/failure";
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

test("a bucket that is gone is no job that is gone", withServer, async () => {
  const own = await startNats();
  const store = await openStore(own);
  try {
    const queue = new JobQueue(store, { patienceMs: 30_000 });
    await queue.submit(fields("before"));
    const held = await queue.take(owner(), new AbortController().signal);
    assert.ok(held !== undefined);
    const connection = await link(own);
    await (await connection.manager()).streams.delete(stream);
    await connection.close();
    // Whoever has the job would end its run.
    await assert.rejects(held.look(), withCode("E_QUEUE_AWAY"));
    const submitter = new JobQueue(await openStore(own), { patienceMs: 1_000 });
    const after = await submitter.submit(fields("after"));
    // Who watched the bucket of before sees what is in this one, and nothing of that one.
    const next = await queue.take(owner(), new AbortController().signal);
    assert.equal(next?.job.id, after.id);
    assert.deepEqual(
      (await queue.list()).map(({ job }) => job.name),
      ["after"],
    );
    await submitter.close();
  } finally {
    await store.close();
    await own.close();
  }
});

test("a queue can be read though its last record was removed", withServer, async () => {
  const own = await startNats();
  const connection = await link(own);
  try {
    const queue = new JobQueue(await openStore(own), { patienceMs: 1_000 });
    await queue.submit(fields("kept"));
    const held = await queue.take(owner(), new AbortController().signal);
    await held?.beat({
      ...{ step: 1, totalSteps: 2, loss: null, address: null, workers: null, runId: null },
    });
    await held?.done({ step: 1, runId: "ab" }, { step: 1, mastersSha256: null });
    await queue.close();
    // As `nats kv compact` does with what marks a record as removed, here the beat's.
    const { streams } = await connection.manager();
    await streams.purge(stream, { filter: `$KV.lockstep-jobs.beats.${held?.job.id}` });
    const late = new JobQueue(await openStore(own), { patienceMs: 1_000 });
    assert.deepEqual(
      (await late.list()).map(({ job }) => job.name),
      ["kept"],
    );
    await late.submit(fields("more"));
    assert.equal((await late.list()).length, 2);
    await late.close();
  } finally {
    await connection.close();
    await own.close();
  }
});

test("what says that a record was removed goes by itself", withServer, async () => {
  const own = await startNats();
  const connection = await link(own);
  try {
    const store = await openStore(own);
    await store.put("beats", "abcdefgh", "{}");
    await store.remove("beats", "abcdefgh");
    assert.equal(await store.get("beats", "abcdefgh"), undefined);
    assert.deepEqual(await store.entries("beats"), []);
    const { streams } = await connection.manager();
    const marker = await streams.getMessage(stream, { last_by_subj: "$KV.lockstep-jobs.>" });
    assert.equal(marker.header.get("Nats-TTL"), "1h");
    await store.close();
    // In a bucket that somebody made by other means it stays.
    await streams.delete(stream);
    await connection.streams.views.kv("lockstep-jobs");
    const foreign = await openStore(own);
    await foreign.put("beats", "abcdefgh", "{}");
    await foreign.remove("beats", "abcdefgh");
    assert.equal(await foreign.get("beats", "abcdefgh"), undefined);
    await foreign.close();
  } finally {
    await connection.close();
    await own.close();
  }
});

test("who only looks makes no queue", withServer, async () => {
  const own = await startNats();
  try {
    const looks = async () => NatsRecordStore.open(await link(own), false);
    await assert.rejects(looks(), withCode("E_QUEUE_UNMADE"));
    await (await openStore(own)).close();
    await (await looks()).close();
  } finally {
    await own.close();
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
