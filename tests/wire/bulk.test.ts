import assert from "node:assert/strict";
import http2 from "node:http2";
import { after, test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { LockstepError } from "#lib/core/errors/index";
import { BulkClient } from "#lib/wire/bulk-client";
import { maxBulkMessageBytes, type PushReply, pushGradientsMethod } from "#lib/wire/bulk-protocol";
import { type BulkHandlers, registerBulkService } from "#lib/wire/bulk-server";
import {
  chunkPayloadBytes,
  decodeFrame,
  encodeFrame,
  type Frame,
  frameHeaderBytes,
} from "#lib/wire/frame";
import { GrpcServer } from "#lib/wire/grpc-server";
import { passEntries } from "#lib/wire/member";
import type { WireSecurity } from "#lib/wire/security";
import { passOf, tagOf } from "#tests/support/members";

const closers: (() => unknown)[] = [];
after(async () => {
  for (const close of closers) await close();
});

/** Consumes a push into one buffer, as a shard would. */
async function assemble(frames: AsyncIterable<Frame>, into: Uint8Array): Promise<number> {
  let received = 0;
  for await (const frame of frames) {
    into.set(frame.payload, frame.offset);
    received += frame.payload.length;
  }
  return received;
}

async function serve(
  handlers: BulkHandlers,
  security: WireSecurity = {},
): Promise<{ port: number; client: (stallTimeoutMs?: number, token?: string) => BulkClient }> {
  const server = new GrpcServer({ security, maxReceiveBytes: maxBulkMessageBytes });
  registerBulkService(server, handlers);
  const port = await server.listen("127.0.0.1", 0);
  closers.push(async () => server.close(0));
  return {
    port,
    client: (stallTimeoutMs = 5_000, token) => {
      const client = new BulkClient({
        pass: passOf(),
        address: `127.0.0.1:${port}`,
        security: token === undefined ? {} : { joinToken: token },
        stallTimeoutMs,
      });
      closers.push(() => client.close());
      return client;
    },
  };
}

const pseudoRandomBytes = (length: number): Uint8Array => {
  const bytes = new Uint8Array(new SharedArrayBuffer(length));
  let state = 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
};

const notServed: BulkHandlers = {
  pushGradients: async () => ({ outcome: "stale", receivedBytes: 0 }),
  pullParameters: ({ version }) => {
    throw new LockstepError("E_VERSION_NOT_PUBLISHED", { version, published: [] });
  },
};

test("a frame survives encoding, and any changed byte is noticed", () => {
  const limit = 2 ** 53 - 1;
  fc.assert(
    fc.property(
      fc.record({
        step: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        group: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        lease: fc.integer({ min: 0, max: limit }),
        offset: fc.integer({ min: 0, max: limit }),
        member: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      }),
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (fields, payload, position, flip) => {
        const message = encodeFrame(fields, payload);
        const frame = decodeFrame(message);
        assert.deepEqual(
          { ...frame, payload: [...frame.payload] },
          { ...fields, checksum: crc32(payload), payload: [...payload] },
        );
        const at = position % message.length;
        message[at] = (message[at] ?? 0) ^ flip;
        assert.throws(() => decodeFrame(message), LockstepError);
      },
    ),
  );
});

test("gradients arrive whole, over several chunks and from shared memory", async () => {
  const sent = pseudoRandomBytes(3 * chunkPayloadBytes + 12_345);
  const received = new Uint8Array(sent.length);
  let meta = "";
  const { client } = await serve({
    ...notServed,
    pushGradients: async ({ pass }, frames): Promise<PushReply> => {
      meta = pass.workerId;
      return { outcome: "complete", receivedBytes: await assemble(frames, received) };
    },
  });
  const reply = await client().pushGradients({ step: 3, group: 1, lease: 9 }, sent);
  assert.deepEqual(reply, { outcome: "complete", receivedBytes: sent.length });
  assert.equal(meta, "worker");
  assert.equal(Buffer.compare(Buffer.from(sent.slice()), received), 0);
});

test("parameters arrive whole, and a version that is not published is named", async () => {
  const published = pseudoRandomBytes(2 * chunkPayloadBytes + 777);
  const { client } = await serve({
    ...notServed,
    pullParameters: (request, pass) =>
      request.version === 5 ? { bytes: published } : notServed.pullParameters(request, pass),
  });
  const into = new Uint8Array(new SharedArrayBuffer(published.length));
  await client().pullParameters({ version: 5 }, into);
  assert.equal(Buffer.compare(Buffer.from(into.slice()), Buffer.from(published.slice())), 0);
  await assert.rejects(client().pullParameters({ version: 6 }, into), (error: LockstepError) => {
    assert.equal(error.code, "E_RPC_FAILED");
    assert.match(error.message, /E_VERSION_NOT_PUBLISHED/);
    return true;
  });
  await assert.rejects(client().pullParameters({ version: 5 }, into.subarray(1)), {
    code: "E_FRAME_INVALID",
  });
  await assert.rejects(
    client().pullParameters({ version: 5 }, new Uint8Array(published.length + 1)),
    { code: "E_TRANSFER_INCOMPLETE" },
  );
});

test("a part of the parameters arrives alone, and one beyond the range is refused", async () => {
  const published = pseudoRandomBytes(2 * chunkPayloadBytes + 777);
  const { client } = await serve({ ...notServed, pullParameters: () => ({ bytes: published }) });
  const pull = async (offset: number, numBytes: number): Promise<Uint8Array> => {
    const into = new Uint8Array(Math.max(0, Math.min(numBytes, 1e6)));
    await client().pullParameters({ version: 1, part: { offset, numBytes } }, into);
    return into;
  };
  for (const [offset, numBytes] of [
    [0, 5],
    [chunkPayloadBytes - 3, 900_001],
    [published.length - 1, 1],
    [published.length, 0],
  ] as const) {
    const expected = published.slice(offset, offset + numBytes);
    assert.ok(Buffer.from(await pull(offset, numBytes)).equals(expected), `${numBytes}`);
  }
  for (const [offset, numBytes] of [
    [0, published.length + 1],
    [published.length, 1],
    [-1, 2],
    [0.5, 2],
    [0, Number.NaN],
    [2 ** 60, 2 ** 60],
  ] as const) {
    await assert.rejects(pull(offset, numBytes), (error: LockstepError) => {
      assert.match(error.message, /E_FRAME_INVALID.*are not in the shard's/);
      return true;
    });
  }
});

test("a shard that answers early ends the push", async () => {
  const { client } = await serve({
    ...notServed,
    pushGradients: async () => ({ outcome: "stale", receivedBytes: 0 }),
  });
  const bytes = new Uint8Array(64 * chunkPayloadBytes);
  const reply = await client().pushGradients({ step: 1, group: 0, lease: 1 }, bytes);
  assert.equal(reply.outcome, "stale");
});

test("a slow reader holds the sender back instead of filling its memory", async () => {
  let read = 0;
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { client } = await serve({
    ...notServed,
    pushGradients: async (_meta, frames) => {
      await gate;
      for await (const frame of frames) read += frame.payload.length;
      return { outcome: "complete", receivedBytes: read };
    },
  });
  const bytes = new Uint8Array(100 * chunkPayloadBytes);
  let sentBytes = 0;
  let stalled = (): void => {};
  const sender = new Promise<void>((resolve) => {
    stalled = resolve;
  });
  let timer = setTimeout(stalled, 400);
  const pushed = client(20_000).pushGradients(
    {
      step: 1,
      group: 0,
      lease: 1,
      onChunk: (bytesSoFar) => {
        sentBytes = bytesSoFar;
        clearTimeout(timer);
        timer = setTimeout(stalled, 400);
      },
    },
    bytes,
  );
  await sender;
  // Window + grpc-js' 16 read-ahead messages + socket buffers, far from the whole.
  assert.ok(sentBytes < 50 * chunkPayloadBytes, `${sentBytes} bytes were taken while nobody read`);
  release();
  assert.equal((await pushed).receivedBytes, bytes.length);
});

test("a shard that stops reading for good is a timeout, not a hang", async () => {
  const { client } = await serve({
    ...notServed,
    pushGradients: async (meta) =>
      new Promise((_resolve, reject) =>
        meta.signal.addEventListener("abort", () => reject(new Error("aborted"))),
      ),
  });
  await assert.rejects(
    client(300).pushGradients(
      { step: 1, group: 0, lease: 1 },
      new Uint8Array(100 * chunkPayloadBytes),
    ),
    { code: "E_RPC_TIMEOUT" },
  );
});

test("a caller without the right token gets nowhere", async () => {
  let reached = false;
  const { client } = await serve(
    {
      ...notServed,
      pushGradients: async () => {
        reached = true;
        return { outcome: "complete", receivedBytes: 0 };
      },
    },
    { joinToken: "right" },
  );
  for (const token of [undefined, "wrong", "right "]) {
    await assert.rejects(
      client(5_000, token).pushGradients({ step: 1, group: 0, lease: 1 }, new Uint8Array(10)),
      (error: LockstepError) => /UNAUTHENTICATED, E_JOIN_TOKEN/.test(error.message),
    );
  }
  assert.equal(reached, false);
  await client(5_000, "right").pushGradients({ step: 1, group: 0, lease: 1 }, new Uint8Array(10));
  assert.equal(reached, true);
});

test("listening beyond loopback needs protection or consent", async () => {
  const bind = async (security: WireSecurity): Promise<number> => {
    const server = new GrpcServer({ security, maxReceiveBytes: 1_000 });
    closers.push(async () => server.close(0));
    return server.listen("0.0.0.0", 0);
  };
  await assert.rejects(bind({}), { code: "E_INSECURE_BIND" });
  await assert.rejects(bind({ joinToken: "t" }), { code: "E_INSECURE_BIND" });
  assert.ok((await bind({ insecure: true })) > 0);
});

test("a port in use is named", async () => {
  const { port } = await serve(notServed);
  const second = new GrpcServer({ security: {}, maxReceiveBytes: 1_000 });
  await assert.rejects(second.listen("127.0.0.1", port), { code: "E_PORT_IN_USE" });
});

test("a client is really offered the wide window, on streams and on the connection", async () => {
  const { port } = await serve(notServed);
  const session = http2.connect(`http://127.0.0.1:${port}`);
  closers.push(() => session.destroy());
  const settings = await new Promise<http2.Settings>((resolve, reject) => {
    session.once("remoteSettings", resolve);
    session.once("error", reject);
  });
  assert.equal(settings.initialWindowSize, 8 * 1024 * 1024);
  // The connection's WINDOW_UPDATE follows the SETTINGS frame; a ping's answer comes after both.
  await new Promise<void>((resolve, reject) => {
    session.ping((error) => (error === null ? resolve() : reject(error)));
  });
  assert.equal(session.state.remoteWindowSize, 8 * 1024 * 1024);
});

test("a frame whose bytes changed is refused with its place", async () => {
  const bytes = Buffer.from("gradient");
  const message = encodeFrame({ step: 2, group: 1, lease: 3, offset: 40, member: tagOf() }, bytes);
  message[frameHeaderBytes] = (message[frameHeaderBytes] ?? 0) ^ 1;
  assert.throws(() => decodeFrame(message), {
    code: "E_FRAME_CORRUPT",
    message: /step 2, group 1, 8 bytes at byte 40/,
  });
});

test("a chunk that changed on its way is refused over the wire as data loss", async () => {
  const into = new Uint8Array(100);
  let assembled = false;
  const { port } = await serve({
    ...notServed,
    pushGradients: async (_meta, frames) => {
      const receivedBytes = await assemble(frames, into);
      assembled = true;
      return { outcome: "complete", receivedBytes };
    },
  });
  const message = encodeFrame(
    { step: 1, group: 0, lease: 1, offset: 0, member: tagOf() },
    new Uint8Array(100),
  );
  const push = async (frame: Buffer): Promise<http2.IncomingHttpHeaders> => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    const stream = session.request({
      ":method": "POST",
      ":path": pushGradientsMethod.path,
      "content-type": "application/grpc",
      ...passEntries(passOf()),
      te: "trailers",
    });
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(frame.length, 1);
    stream.end(Buffer.concat([prefix, frame]));
    stream.resume();
    try {
      return await new Promise((resolve, reject) => {
        // An error comes as headers alone, an answer with trailers.
        stream.once("response", (headers) => {
          if (headers["grpc-status"] !== undefined) resolve(headers);
        });
        stream.once("trailers", resolve);
        stream.once("error", reject);
      });
    } finally {
      session.destroy();
    }
  };
  const dataLoss = "15";
  const damaged = Buffer.from(message);
  damaged[frameHeaderBytes + 50] = 1;
  const refused = await push(damaged);
  assert.equal(refused["grpc-status"], dataLoss);
  assert.equal(refused["lockstep-error-code"], "E_FRAME_CORRUPT");
  assert.equal(assembled, false);
  assert.equal((await push(message))["grpc-status"], "0");
});
