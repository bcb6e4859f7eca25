import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ErrorCode, NatsError } from "nats";
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

const times = { renewMs: 300, ownerMs: 4_000, takeoverMs: 5_000 };
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
  { standby = true, url }: { readonly standby?: boolean; readonly url?: string } = {},
): Promise<Contender> {
  const own = await link(url);
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
    ...{ name, holder: name, standby, times, signal: stop.signal },
    onWaiting: wait,
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
    assert.equal(lease.epoch, 1);
    const second = await contend(name);
    await second.waits;
    await lease.raise(40);
    await lease.release();
    assert.throws(() => lease.assertHeld(), { code: "E_LEASE_LOST" });
    const next = await second.lease;
    assert.equal(next.epoch, 41);
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
  assert.deepEqual(epochs, [1, 2, 3, 4, 5, 6, 7, 8]);
  for (const { leave } of all) await leave();
});

test("an owner that is cut off stops by itself before another one leads", withServer, async () => {
  const name = newName();
  const wire = await CutWire.to(nats.servers[0]?.port ?? 0);
  const first = await contend(name, { url: `nats://127.0.0.1:${wire.port}` });
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
  assert.equal(next.epoch, 2);
  await next.release();
  await second.leave();
  wire.close();
  await first.leave();
});

test("who follows while an answer gets lost leads all the same", withServer, async () => {
  const name = newName();
  const own = await link();
  const { connection } = own;
  const jetstream = connection.jetstream.bind(connection);
  let numLost = 0;
  Object.assign(connection, {
    jetstream: (...options: Parameters<typeof jetstream>) => ({
      views: {
        kv: async (...bucket: Parameters<ReturnType<typeof jetstream>["views"]["kv"]>) => {
          const kv = await jetstream(...options).views.kv(...bucket);
          const create = kv.create.bind(kv);
          kv.create = async (...record) => {
            const revision = await create(...record);
            numLost += 1;
            if (numLost === 1) throw new NatsError("TIMEOUT", ErrorCode.Timeout);
            return revision;
          };
          return kv;
        },
      },
    }),
  });
  const lease = await NatsLease.acquire(own, {
    ...{ name, holder: name, standby: true, times, signal: new AbortController().signal },
    onWaiting: (text) => assert.fail(`it waits for itself: ${text}`),
    onLost: ({ code }) => assert.fail(code),
  });
  assert.equal(numLost, 1);
  assert.equal(lease.epoch, 2);
  lease.assertHeld();
  await lease.release();
  await own.close();
});

test("a lease outlives a server that is killed and started again", withServer, async () => {
  const name = newName();
  const first = await contend(name);
  const lease = await first.lease;
  const [server] = nats.servers;
  await server?.stop("SIGKILL");
  await server?.start();
  await server?.untilReady();
  await lease.raise(7);
  lease.assertHeld();
  await lease.release();
  const second = await contend(name);
  assert.equal((await second.lease).epoch, 8);
  await first.leave();
  await second.leave();
});
