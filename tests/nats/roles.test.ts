import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { thisProcess } from "#lib/core/process-identity";
import { JobQueue } from "#lib/queue/job-queue";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { NatsLink } from "#lib/wire/nats/connection";
import { EventPublisher } from "#lib/wire/nats/event-publisher";
import { eventStream } from "#lib/wire/nats/event-stream";
import { findRun, watchRun } from "#lib/wire/nats/event-watch";
import { NatsLease } from "#lib/wire/nats/leader-lease";
import { NatsRecordStore } from "#lib/wire/nats/record-store";
import { commandRun, RunCommands } from "#lib/wire/nats/run-commands";
import { startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";
import { fields } from "#tests/queue/suite";

// The configuration that deploy/kustomize/nats documents, by the real server: each role may do its own, and nothing else.

const withServer = needs("natsServer");
const roles = ["watcher", "submitter", "coordinator", "agent"] as const;
type Role = (typeof roles)[number];
const run = { runId: "0123456789abcdef", runName: "run", epoch: 1 };

let directory: string;
let nats: Awaited<ReturnType<typeof startNats>>;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-roles-"));
  if (withServer.skip !== undefined) return;
  for (const role of roles) await writeFile(join(directory, role), `${role}:secret-${role}`);
  nats = await startNats({
    // A file that is included is looked for beside the one that includes it.
    include: join(packageRoot, "deploy/kustomize/nats/lockstep.conf"),
    env: Object.fromEntries(
      roles.map((role) => [`LOCKSTEP_NATS_${role.toUpperCase()}_PASSWORD`, `secret-${role}`]),
    ),
  });
});
after(async () => {
  await nats?.close();
  await rm(directory, { recursive: true, force: true });
});

/** A connection of a user; its commands may be those of another role. */
const open = (user: Role, role: Role = user): Promise<NatsLink> =>
  NatsLink.open(
    { ...nats.settings, credentialsFile: join(directory, user) },
    { role, name: "test", onNews: () => {} },
  );

async function publish(user: Role): Promise<void> {
  const bus = new InProcessEventBus();
  const told: string[] = [];
  const publisher = new EventPublisher(bus, {
    connect: () => open(user, "coordinator"),
    retention: { maxAgeDays: null, maxGigabytes: null },
    onNews: (line) => told.push(line),
  });
  publisher.begin(run);
  bus.publish({ type: "note", text: user });
  while (publisher.figures.numPublished === 0 && told.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await publisher.close(1);
  if (publisher.figures.numPublished === 0) throw new Error(told.join());
}

async function watch(user: Role): Promise<void> {
  const link = await open(user);
  try {
    const { runId } = await findRun(link, run.runId);
    const news: string[] = [];
    const stop = new AbortController();
    const events = watchRun(link, runId, {
      signal: stop.signal,
      onNews: (line) => {
        news.push(line);
        stop.abort();
      },
    });
    const { value } = await events.next();
    await events.return();
    if (value === undefined) throw new Error(news.join());
  } finally {
    await link.close();
  }
}

async function command(user: Role): Promise<void> {
  const link = await open(user);
  try {
    assert.equal(await commandRun(link, run, "pause"), "done");
  } finally {
    await link.close();
  }
}

async function withQueue<T>(user: Role, act: (queue: JobQueue) => Promise<T>): Promise<T> {
  const queue = new JobQueue(await NatsRecordStore.open(await open(user)), { patienceMs: 1_000 });
  try {
    return await act(queue);
  } finally {
    await queue.close();
  }
}

const owner = () => ({
  ...{ agent: "a", instance: randomUUID(), host: "here", process: thisProcess(), leaseMs: 60_000 },
});

const submit = (user: Role) => withQueue(user, (queue) => queue.submit(fields(`job of ${user}`)));
const list = (user: Role) => withQueue(user, (queue) => queue.list());
const take = (user: Role) =>
  withQueue(user, async (queue) => {
    const held = await queue.take(owner(), new AbortController().signal, { untilEmpty: true });
    assert.ok(held !== undefined);
    await held.beat({
      step: 0,
      totalSteps: null,
      loss: null,
      address: null,
      workers: null,
      runId: null,
    });
  });
async function removeStream(user: Role): Promise<void> {
  const link = await open(user);
  try {
    await (await link.manager()).streams.delete(eventStream);
  } finally {
    await link.close();
  }
}
async function overhear(user: Role): Promise<void> {
  const link = await open(user);
  try {
    const subscription = link.connection.subscribe("_INBOX_other.>", { max: 1 });
    await link.connection.flush();
    for await (const _ of subscription) break;
    throw new Error("it ended");
  } finally {
    await link.close();
  }
}

async function lead(user: Role): Promise<void> {
  const link = await open(user, "coordinator");
  try {
    const lease = await NatsLease.acquire(link, {
      ...{ name: "run", holder: user, standby: true, signal: new AbortController().signal },
      onWaiting: () => {},
      onLost: () => {},
    });
    await lease.raise(0);
    await lease.release();
  } finally {
    await link.close();
  }
}

/** In the order in which they need one another. */
const actions: readonly (readonly [
  name: string,
  act: (user: Role) => Promise<unknown>,
  may: readonly Role[],
])[] = [
  ["publish events", publish, ["coordinator", "agent"]],
  ["watch a run", watch, ["watcher"]],
  ["tell a run what to do", command, ["submitter"]],
  ["lead a run", lead, ["coordinator", "agent"]],
  ["submit a job", submit, ["submitter", "agent"]],
  ["list jobs", list, ["watcher", "submitter", "agent"]],
  ["take a job", take, ["agent"]],
  ["remove the stream of events", removeStream, []],
  ["hear what others are answered", overhear, []],
];

for (const [name, act, may] of actions) {
  for (const role of [...may, ...roles.filter((each) => !may.includes(each))]) {
    const isAllowed = may.includes(role);
    test(`${role} ${isAllowed ? "may" : "may not"} ${name}`, withServer, async (t) => {
      if (act === command) {
        const link = await open("coordinator");
        const commands = new RunCommands(link, run, () => "done");
        await link.connection.flush();
        t.after(async () => {
          commands.close();
          await link.close();
        });
      }
      if (isAllowed) await act(role);
      else await assert.rejects(act(role), /[Pp]ermission|may not|refuses/);
    });
  }
}

test("a user of another role, or of none, is refused", withServer, async () => {
  await assert.rejects(
    NatsLink.open(nats.settings, { role: "watcher", name: "x", onNews: () => {} }),
    {
      code: "E_NATS_REFUSED",
    },
  );
});
