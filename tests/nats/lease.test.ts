import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ErrorCode, type KV, type NatsConnection, NatsError } from "nats";
import { NatsLink } from "#lib/wire/nats/connection";
import { NatsLease } from "#lib/wire/nats/leader-lease";
import { CutWire } from "#tests/support/cut-wire";
import { natsSettings, startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";

const withServer = needs("natsServer");
let nats: Awaited<ReturnType<typeof startNats>>;
let numNames = 0;

before(async () => {
  if (withServer.skip === undefined) nats = await startNats();
});
after(async () => nats?.close());

const times = { renewMs: 300, ownerMs: 4_000, takeoverMs: 5_000, patienceMs: 60_000 };
/** Of one that is to outlive what the machine makes of a restart. */
const patientTimes = { ...times, ownerMs: 20_000, takeoverMs: 25_000 };
const newName = (): string => `lease-${++numNames}`;
const link = (url = nats.settings.url): Promise<NatsLink> =>
  NatsLink.open(natsSettings(url), { role: "coordinator", name: "test", onNews: () => {} });

interface Contender {
  readonly lease: Promise<NatsLease>;
  /** Settles with the code of the loss. */
  readonly lost: Promise<string>;
  /** Settles once it says that it waits. */
  readonly waits: Promise<void>;
  readonly leave: () => Promise<void>;
}

async function contend(
  name: string,
  {
    standby = true,
    own: given,
    within = times,
  }: { readonly standby?: boolean; readonly own?: NatsLink; readonly within?: typeof times } = {},
): Promise<Contender> {
  const own = given ?? (await link());
  const stop = new AbortController();
  let lose: (code: string) => void = () => {};
  const lost = new Promise<string>((resolve) => {
    lose = resolve;
  });
  let wait = (): void => {};
  const waits = new Promise<void>((resolve) => {
    wait = resolve;
  });
  const lease = NatsLease.acquire(own, {
    ...{ name, holder: name, standby, times: within, signal: stop.signal },
    onWaiting: (text) => {
      if (text.includes("this one follows")) wait();
    },
    onLost: ({ code }) => lose(code),
  });
  lease.catch(() => {});
  const leave = async (): Promise<void> => {
    stop.abort();
    await own.close();
  };
  return { lease, lost, waits, leave };
}

test(
  "who stands by follows one that gives the lease up, with a larger epoch",
  withServer,
  async () => {
    const name = newName();
    const first = await contend(name);
    const lease = await first.lease;
    const second = await contend(name);
    await second.waits;
    await lease.raise(40);
    await lease.release();
    assert.throws(() => lease.assertHeld(), { code: "E_LEASE_LOST" });
    const next = await second.lease;
    assert.ok(next.epoch > 40, `${next.epoch}`);
    next.assertHeld();
    await next.release();
    await first.leave();
    await second.leave();
  },
);

test("while the owner lives, one that does not stand by is refused", withServer, async () => {
  const name = newName();
  const first = await contend(name);
  const lease = await first.lease;
  const second = await contend(name, { standby: false });
  await assert.rejects(second.lease, { code: "E_LEASE_HELD" });
  lease.assertHeld();
  await lease.release();
  await first.leave();
  await second.leave();
});

test("of many that follow one leads", withServer, async () => {
  const name = newName();
  const all = await Promise.all(Array.from({ length: 8 }, () => contend(name)));
  const epochs: number[] = [];
  let leading = 0;
  await Promise.all(
    all.map(async ({ lease }) => {
      const held = await lease;
      leading += 1;
      assert.equal(leading, 1);
      held.assertHeld();
      epochs.push(held.epoch);
      await held.raise(0);
      leading -= 1;
      await held.release();
    }),
  );
  // One that does not hear of its own success follows itself.
  assert.ok(
    epochs.every((epoch, index) => epoch > (epochs[index - 1] ?? 0)),
    epochs.join(),
  );
  assert.equal(epochs.length, 8);
  for (const { leave } of all) await leave();
});

test("an owner that is cut off stops by itself before another one leads", withServer, async () => {
  const name = newName();
  const wire = await CutWire.to(nats.servers[0]?.port ?? 0);
  const first = await contend(name, { own: await link(`nats://127.0.0.1:${wire.port}`) });
  const lease = await first.lease;
  const second = await contend(name);
  await second.waits;
  const order: string[] = [];
  void first.lost.then((code) => order.push(code));
  void second.lease.then(() => order.push("second leads"));
  wire.cut();
  const next = await second.lease;
  assert.deepEqual(order, ["E_LEASE_LOST", "second leads"]);
  assert.throws(() => lease.assertHeld(), {
    code: "E_LEASE_LOST",
    message: /could not be renewed/,
  });
  assert.ok(next.epoch > lease.epoch);
  await next.release();
  await second.leave();
  wire.close();
  await first.leave();
});

type KvArguments = Parameters<ReturnType<NatsConnection["jetstream"]>["views"]["kv"]>;

/** Lets a test come between a lease and its bucket. */
function withBucket(own: NatsLink, open: (open: () => Promise<KV>) => Promise<KV>): NatsLink {
  const { connection } = own;
  const jetstream = connection.jetstream.bind(connection);
  Object.assign(connection, {
    jetstream: (...options: Parameters<typeof jetstream>) => ({
      views: {
        kv: (...bucket: KvArguments) => open(() => jetstream(...options).views.kv(...bucket)),
      },
    }),
  });
  return own;
}

test("who follows while an answer gets lost leads all the same", withServer, async () => {
  const name = newName();
  let numLost = 0;
  const own = withBucket(await link(), async (open) => {
    const kv = await open();
    const create = kv.create.bind(kv);
    kv.create = async (...record) => {
      const revision = await create(...record);
      numLost += 1;
      if (numLost === 1) throw new NatsError("TIMEOUT", ErrorCode.Timeout);
      return revision;
    };
    return kv;
  });
  const lease = await NatsLease.acquire(own, {
    ...{ name, holder: name, standby: true, times, signal: new AbortController().signal },
    onWaiting: (text) => assert.fail(`it waits for itself: ${text}`),
    onLost: ({ code }) => assert.fail(code),
  });
  assert.ok(numLost >= 1);
  assert.ok(lease.epoch >= 2);
  lease.assertHeld();
  await lease.release();
  await own.close();
});

test("who begins while a cluster has no leader waits for one", withServer, async () => {
  const away = new NatsError("TIMEOUT", ErrorCode.Timeout);
  let numAsked = 0;
  const electing = async () =>
    withBucket(await link(), async (open) => {
      numAsked += 1;
      if (numAsked <= 2) throw away;
      return open();
    });
  for (const standby of [true, false]) {
    numAsked = 0;
    const { lease, leave } = await contend(newName(), { standby, own: await electing() });
    await (await lease).release();
    assert.ok(numAsked >= 3);
    await leave();
  }
  // One that does not stand by waits for a while.
  const never = withBucket(await link(), () => Promise.reject(away));
  const within = { ...times, patienceMs: 600 };
  const impatient = await contend(newName(), { standby: false, own: never, within });
  await assert.rejects(impatient.lease, { code: "E_NATS_STREAM", message: /no answer in time/ });
  await impatient.leave();
});

test("who begins where JetStream is off is refused at once", withServer, async () => {
  const off = new NatsError("503", ErrorCode.NoResponders);
  const own = withBucket(await link(), () => Promise.reject(off));
  const refused = await contend(newName(), { own });
  await assert.rejects(refused.lease, { code: "E_NATS_STREAM", message: /JetStream is off/ });
  await refused.leave();
});

test("a lease outlives a server that is killed and started again", {
  ...withServer,
  timeout: 60_000,
}, async () => {
  const name = newName();
  let drop = (): void => {};
  const dropped = new Promise<void>((resolve) => {
    drop = resolve;
  });
  let isKilled = false;
  const own = withBucket(await link(), async (open) => {
    const kv = await open();
    const update = kv.update.bind(kv);
    kv.update = (...record) => {
      if (!isKilled) return update(...record);
      // Into the connection that is about to be lost: it gets no answer, however long it is waited for.
      isKilled = false;
      drop();
      return new Promise(() => {});
    };
    return kv;
  });
  const first = await contend(name, { own, within: patientTimes });
  const lease = await first.lease;
  const [server] = nats.servers;
  isKilled = true;
  await dropped;
  await server?.stop("SIGKILL");
  await server?.start();
  await server?.untilReady();
  await lease.raise(7);
  lease.assertHeld();
  await lease.release();
  const second = await contend(name, { within: patientTimes });
  assert.ok((await second.lease).epoch > 7);
  await first.leave();
  await second.leave();
});
