import assert from "node:assert/strict";
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import { after, test } from "node:test";
import type { ControlHandlers } from "#lib/wire/control-messages";
import { controlMethods } from "#lib/wire/control-codec";
import { registerControlService } from "#lib/wire/control-server";
import { GrpcServer } from "#lib/wire/grpc-server";
import type { WireSecurity } from "#lib/wire/security";

const maxReceiveBytes = 1_000_000;
const path = "/lockstep.v1.Control/Leave";

const ends: (() => unknown)[] = [];
after(async () => {
  for (const end of ends.reverse()) await end();
});

async function serve(security: WireSecurity): Promise<{
  readonly connect: () => ClientHttp2Session;
  readonly refused: string[];
}> {
  const refused: string[] = [];
  const server = new GrpcServer({
    ...{ security, maxReceiveBytes },
    onHandled: (method, code) => {
      if (code !== "OK") refused.push(`${method} ${code}`);
    },
  });
  const handlers = { admit: () => {}, leave: async () => {} } as unknown as ControlHandlers;
  registerControlService(server, handlers);
  const port = await server.listen("127.0.0.1", 0);
  ends.push(async () => server.close(0));
  return {
    refused,
    connect: () => {
      const session = http2.connect(`http://127.0.0.1:${port}`);
      session.on("error", () => {});
      ends.push(() => session.destroy());
      return session;
    },
  };
}

/** A call whose message does not end. */
function unfinished(
  session: ClientHttp2Session,
  sentBytes: number,
  headers: Readonly<Record<string, string>> = {},
): ClientHttp2Stream {
  const call = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    ...headers,
  });
  call.on("error", () => {});
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(maxReceiveBytes - 1, 1);
  call.write(Buffer.concat([prefix, Buffer.alloc(sentBytes)]));
  return call;
}

/** The status of a call's answer, of which the message is whole. */
async function answer(session: ClientHttp2Session): Promise<unknown> {
  const call = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
  });
  const message = controlMethods.leave.requestSerialize({ workerId: "w", reason: "r" });
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  call.end(Buffer.concat([prefix, message]));
  return new Promise((resolve) => {
    call.resume().on("trailers", (trailers) => resolve(trailers["grpc-status"]));
  });
}

const refusalOf = async (call: ClientHttp2Stream): Promise<unknown> =>
  new Promise((resolve) => {
    call.on("response", (headers) => resolve(headers["lockstep-error-code"]));
  });

test("a token is looked at before a message, and the connection ends without one", async () => {
  const { connect, refused } = await serve({ joinToken: "secret" });
  const session = connect();
  const closed = new Promise((resolve) => session.once("close", resolve));
  assert.equal(await refusalOf(unfinished(session, 1_000)), "E_JOIN_TOKEN");
  await closed;
  assert.deepEqual(refused, ["Leave UNAUTHENTICATED"]);
});

test("compressed messages, of which a small one may be large, are refused by their header", async () => {
  const { connect } = await serve({});
  const call = unfinished(connect(), 10, { "grpc-encoding": "gzip" });
  assert.equal(await refusalOf(call), "E_MESSAGE_INVALID");
});

test("who has shown nothing has few calls open", async () => {
  const { connect } = await serve({});
  const session = connect();
  const closed = new Promise((resolve) => session.once("close", resolve));
  for (let call = 0; call < 9; call++) unfinished(session, 10);
  await closed;
});

test("messages without end have a budget, a member's too, and the oldest pays", async () => {
  const { connect } = await serve({});
  const sentBytes = 900_000;
  const [session, other] = [connect(), connect()];
  assert.equal(await answer(session), "0");
  const calls = Array.from({ length: 90 }, () => unfinished(session, sentBytes));
  const isOpen = calls.map(() => true);
  const numAllowed = Math.floor((64 * 1024 * 1024) / sentBytes);
  await new Promise<void>((resolve) => {
    for (const [index, call] of calls.entries()) {
      call.on("close", () => {
        isOpen[index] = false;
        if (isOpen.filter(Boolean).length <= numAllowed) resolve();
      });
    }
  });
  assert.equal(isOpen[0], false);
  assert.equal(isOpen.at(-1), true);
  assert.equal(await answer(other), "0");
});
