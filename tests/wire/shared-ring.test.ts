import assert from "node:assert/strict";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, mock, test } from "node:test";
import fc from "fast-check";
import { BulkClient } from "#lib/wire/bulk-client";
import { maxBulkMessageBytes } from "#lib/wire/bulk-protocol";
import { registerBulkService } from "#lib/wire/bulk-server";
import { chunkPayloadBytes, encodeFrame, frameHeaderBytes } from "#lib/wire/frame";
import { GrpcServer } from "#lib/wire/grpc-server";
import { SharedRing } from "#lib/wire/shared-ring";
import { passOf } from "#tests/support/members";

const never = (): boolean => false;
const fields = { step: 3, group: 1, lease: 9, offset: 0, member: 5n };

/** The two ends of one ring, and the offer. */
function pair(): { sender: SharedRing; receiver: SharedRing; offer: string } {
  const offered = SharedRing.offer();
  assert.ok(offered !== undefined);
  const receiver = SharedRing.accept(offered.offer);
  assert.ok(receiver !== undefined);
  after(() => {
    offered.ring.close();
    receiver.close();
  });
  return { sender: offered.ring, receiver, offer: offered.offer };
}

const bytesOf = (seed: number, length: number): Uint8Array =>
  new Uint8Array(new SharedArrayBuffer(length)).map((_, i) => (i * 31 + seed * 7) % 251);

test("payloads of any size come out as they went in, around the ring several times", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: 3000 }), { minLength: 1, maxLength: 30 }),
      async (sizes) => {
        const { sender, receiver } = pair();
        for (const [index, size] of sizes.entries()) {
          const payload = bytesOf(index, size);
          const message = await sender.put({ ...fields, offset: index }, payload, never);
          assert.equal(message?.length, frameHeaderBytes);
          const { payload: taken, checksum: _, ...others } = receiver.take(message as Buffer);
          assert.deepEqual(others, { ...fields, offset: index });
          assert.deepEqual([...taken], [...payload]);
        }
        sender.close();
        receiver.close();
      },
    ),
    { numRuns: 20 },
  );
});

test("a ring is offered again, to nobody who has the offer of before", async () => {
  const { sender, receiver, offer } = pair();
  await sender.put(fields, bytesOf(1, 100), never);
  receiver.close();
  const again = sender.offerAgain();
  assert.equal(again.ring, sender);
  assert.equal(SharedRing.accept(offer), undefined);
  const next = SharedRing.accept(again.offer);
  assert.ok(next !== undefined);
  for (let index = 0; index < 20; index++) {
    const payload = bytesOf(index, 300);
    const message = await sender.put({ ...fields, offset: index }, payload, never);
    assert.deepEqual([...next.take(message as Buffer).payload], [...payload]);
  }
  next.close();
});

test("a payload goes to the place that is given, and a whole message passes beside the ring", async () => {
  const { sender, receiver } = pair();
  const payload = bytesOf(1, chunkPayloadBytes);
  const place = new Uint8Array(new SharedArrayBuffer(chunkPayloadBytes));
  const message = (await sender.put(fields, payload, never)) as Buffer;
  assert.equal(receiver.holds(message), true);
  receiver.take(message, place);
  assert.equal(Buffer.compare(Buffer.from(place.slice()), Buffer.from(payload.slice())), 0);
  const whole = encodeFrame(fields, payload.subarray(0, 100));
  assert.equal(receiver.holds(whole), false);
  assert.deepEqual([...receiver.take(whole).payload], [...payload.subarray(0, 100)]);
});

test("a sender waits for a free slot, and stops waiting when the call is over", async () => {
  const { sender, receiver } = pair();
  const messages: Buffer[] = [];
  let isOver = false;
  let numPut = 0;
  const waiting = (async () => {
    for (;;) {
      const message = await sender.put(
        { ...fields, offset: numPut },
        bytesOf(numPut, 50),
        () => isOver,
      );
      if (message === undefined) return;
      numPut += 1;
      messages.push(message);
    }
  })();
  const putReaches = async (count: number): Promise<void> => {
    while (numPut < count) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  await putReaches(8);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(numPut, 8);
  assert.deepEqual([...receiver.take(messages[0] as Buffer).payload], [...bytesOf(0, 50)]);
  await putReaches(9);
  for (let index = 1; index < 9; index++) {
    assert.deepEqual(
      [...receiver.take(messages[index] as Buffer).payload],
      [...bytesOf(index, 50)],
    );
  }
  await putReaches(16);
  isOver = true;
  await waiting;
});

test("whether a payload may still be read is asked when its slot is free, not before", async () => {
  const { sender, receiver } = pair();
  const waiting: Buffer[] = [];
  let isGone = false;
  const put = async (seed: number): Promise<Buffer | undefined> =>
    sender.put(fields, bytesOf(seed, 100), never, () => {
      if (isGone) throw new Error("a later version took the memory");
    });
  for (let i = 0; i < 8; i++) waiting.push((await put(i)) as Buffer);
  const late = put(8);
  isGone = true;
  receiver.take(waiting[0] as Buffer);
  await assert.rejects(late, /a later version/);
  // What was put before is whole.
  assert.deepEqual([...receiver.take(waiting[1] as Buffer).payload], [...bytesOf(1, 100)]);
});

test("a byte that changed in the ring is noticed", async () => {
  const { sender, receiver, offer } = pair();
  const message = (await sender.put(fields, bytesOf(1, 1000), never)) as Buffer;
  fs.writeSync(Number(offer.split(":")[1]), Buffer.from([255]), 0, 1, 4096 + 500);
  assert.throws(() => receiver.take(message), { code: "E_FRAME_CORRUPT" });
});

test("only the ring that was meant is opened", () => {
  const { offer } = pair();
  const [pid, descriptor, nonce = ""] = offer.split(":");
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-ring-"));
  const named = fs.openSync(join(directory, "file"), "w+");
  fs.writeSync(named, Buffer.from(nonce, "hex"));
  fs.ftruncateSync(named, fs.fstatSync(Number(descriptor)).size);
  const device = fs.openSync("/dev/null", "r+");
  after(() => {
    fs.closeSync(named);
    fs.closeSync(device);
    fs.rmSync(directory, { recursive: true });
  });
  const wrongNonce = nonce.replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
  for (const refused of [
    "",
    `${pid}:${descriptor}`,
    `${pid}:../${descriptor}:${nonce}`,
    `${pid}:${descriptor}:${wrongNonce}`,
    `${pid}:${named}:${nonce}`,
    `${pid}:${device}:${nonce}`,
    `${pid}:999999:${nonce}`,
    `4294967:${descriptor}:${nonce}`,
  ]) {
    assert.equal(SharedRing.accept(refused), undefined, refused);
  }
});

test("a ring has no name, so nothing stays behind a process that is killed", () => {
  const descriptor = pair().offer.split(":")[1];
  assert.equal(fs.fstatSync(Number(descriptor)).nlink, 0);
  const path = fs.readlinkSync(`/proc/self/fd/${descriptor}`);
  assert.match(path, /^\/dev\/shm\/lockstep-.* \(deleted\)$/);
  assert.equal(fs.existsSync(path.replace(" (deleted)", "")), false);
});

for (const [where, numOpened] of [
  ["through the ring", 2],
  ["where the shard cannot open it", 0],
  ["where the shard opens the pull's only", 1],
] as const) {
  test(`a pull and then a push arrive whole ${where}`, async () => {
    const isShared = numOpened > 0;
    const published = bytesOf(5, 20 * chunkPayloadBytes + 777);
    const pushed = bytesOf(6, 20 * chunkPayloadBytes + 333);
    const received = new Uint8Array(pushed.length);
    const server = new GrpcServer({ security: {}, maxReceiveBytes: maxBulkMessageBytes });
    registerBulkService(server, {
      pullParameters: () => ({ bytes: published }),
      pushGradients: async (_meta, frames) => {
        for await (const { payload, offset } of frames) received.set(payload, offset);
        return { outcome: "complete", receivedBytes: received.length };
      },
    });
    const port = await server.listen("127.0.0.1", 0);
    const client = new BulkClient({ address: `127.0.0.1:${port}`, security: {}, pass: passOf() });
    const { accept: open } = SharedRing;
    let numAsked = 0;
    const accept = mock.method(SharedRing, "accept", (offer: string) =>
      numAsked++ < numOpened ? open.call(SharedRing, offer) : undefined,
    );
    const descriptors = fs.readdirSync("/proc/self/fd").length;
    try {
      const into = new Uint8Array(new SharedArrayBuffer(published.length));
      await client.pullParameters({ version: 1 }, into);
      assert.equal(Buffer.compare(Buffer.from(into.slice()), Buffer.from(published.slice())), 0);
      await client.pushGradients({ step: 1, group: 0, lease: 1 }, pushed);
      assert.equal(Buffer.compare(received, Buffer.from(pushed.slice())), 0);
      // A push offers a ring only where the pull before it came through one.
      assert.equal(accept.mock.callCount(), isShared ? 2 : 1);
      assert.equal(accept.mock.calls[0]?.result !== undefined, isShared);
      // The connection's two sockets are the only descriptors that stay, and a ring that is used again.
      const kept = isShared ? 3 : 2;
      assert.ok(fs.readdirSync("/proc/self/fd").length <= descriptors + kept);
    } finally {
      accept.mock.restore();
      client.close();
      await server.close(0);
    }
  });
}
