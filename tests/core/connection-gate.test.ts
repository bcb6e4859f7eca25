import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer, get } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import { type AddressInfo } from "node:net";
import { after, test } from "node:test";
import { ConnectionGate } from "#lib/core/connection-gate";
import type { ConnectionRefusal } from "#lib/core/events";

const ends: (() => unknown)[] = [];
after(() => {
  for (const end of ends) end();
});

async function listening<T extends Server>(server: T): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  ends.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

/** From an address of this machine, so that one can be told from another. */
async function dial(port: number, localAddress = "127.0.0.1"): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", localAddress });
  socket.on("error", () => {});
  ends.push(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

const closed = async (socket: Socket): Promise<void> => {
  if (!socket.resume().closed) await once(socket, "close");
};

test("whoever shows nothing makes room, of the address that has most first", async () => {
  const reached: Socket[] = [];
  const server = createServer((socket) => reached.push(socket));
  const gate = new ConnectionGate(server, { maxWaiting: 8, maxHandedOver: 2, maxProven: 2 });
  const port = await listening(server);
  const until = async (num: number): Promise<void> => {
    while (reached.length < num) await once(server, "connection");
  };
  const worker = await dial(port, "127.0.0.2");
  await until(1);
  const flood = [await dial(port), await dial(port), await dial(port)];
  await until(4);
  // Two at a time: the worker, and the last of the flood.
  await Promise.all(flood.slice(0, 2).map(closed));
  assert.equal(worker.closed, false);
  const [first, , , last] = reached;
  assert.ok(first !== undefined && last !== undefined);
  assert.equal(gate.prove(first), true);
  assert.equal(gate.isProven(first), true);
  assert.equal(gate.isProven(last), false);
  // Proven ones are none of those that make room.
  flood.push(await dial(port), await dial(port), await dial(port));
  await until(7);
  await closed(flood[3] as Socket);
  assert.equal(worker.closed, false);
});

test("one port of the other side, connected to two addresses of a server, is two connections", async () => {
  const reached: Socket[] = [];
  const server = createServer((socket) => reached.push(socket));
  const gate = new ConnectionGate(server, { maxWaiting: 8, maxHandedOver: 8, maxProven: 2 });
  server.listen(0, "0.0.0.0");
  await once(server, "listening");
  ends.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  const one = await dial(port);
  const { localPort = 0 } = one;
  const other = connect({ port, host: "127.0.0.2", localAddress: "127.0.0.1", localPort });
  ends.push(() => other.destroy());
  await once(other, "connect");
  while (reached.length < 2) await once(server, "connection");
  const [first, second] = reached as [Socket, Socket];
  assert.equal(gate.prove(second), true);
  assert.deepEqual([gate.isProven(first), gate.isProven(second)], [false, true]);
  gate.closeUnproven();
  await closed(one);
  assert.equal(other.closed, false);
});

test("no more are proven than may be, and what shows nothing in time is closed", async () => {
  const reached: Socket[] = [];
  const refused: ConnectionRefusal[] = [];
  const server = createServer((socket) => reached.push(socket));
  const gate = new ConnectionGate(server, {
    maxWaiting: 8,
    maxHandedOver: 8,
    maxProven: 1,
    proofMs: 1_000,
    onRefused: (reason) => refused.push(reason),
  });
  const port = await listening(server);
  const sockets = [await dial(port), await dial(port), await dial(port)];
  while (reached.length < 3) await once(server, "connection");
  const proofs = reached.slice(0, 2).map((socket) => gate.prove(socket));
  assert.deepEqual(proofs, [true, false]);
  await Promise.all(sockets.slice(1).map(closed));
  while (refused.length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(refused.sort(), ["full", "silence"]);
  assert.equal(sockets[0]?.closed, false);
});

test("a server that closes does not wait for who has shown nothing", async () => {
  const server = createServer(() => {});
  const gate = new ConnectionGate(server, { maxWaiting: 80, maxHandedOver: 80, maxProven: 1 });
  const port = await listening(server);
  // More than are handed over at once.
  const sockets: Socket[] = [];
  for (let i = 0; i < 70; i++) sockets.push(await dial(port));
  const end = once(server, "close");
  server.close();
  gate.closeUnproven();
  await end;
});

test("who is proven stays until all are closed", async () => {
  const reached: Socket[] = [];
  const server = createServer((socket) => reached.push(socket));
  const gate = new ConnectionGate(server, { maxWaiting: 80, maxHandedOver: 80, maxProven: 1 });
  const port = await listening(server);
  const sockets: Socket[] = [];
  for (let i = 0; i < 70; i++) sockets.push(await dial(port));
  const [proven] = sockets;
  const [first] = reached;
  assert.ok(proven !== undefined && first !== undefined);
  assert.equal(gate.prove(first), true);
  const end = once(server, "close");
  server.close();
  gate.closeUnproven();
  await Promise.all(sockets.slice(1).map(closed));
  assert.equal(proven.closed, false);
  gate.closeAll();
  await end;
  await closed(proven);
});

test("what was sent while a connection waited is there when its turn comes", async () => {
  const server = createHttpServer((_, response) => response.end("here"));
  const gate = new ConnectionGate(server, { maxWaiting: 200, maxHandedOver: 200, maxProven: 1 });
  assert.equal(gate.isProven({ remoteAddress: "127.0.0.1", remotePort: 1 }), false);
  const port = await listening(server);
  // More than are handed over at once: the last ones wait.
  const answers = Array.from({ length: 80 }, async () => {
    const request = get({ port, host: "127.0.0.1", agent: false });
    const [response] = await once(request, "response");
    let text = "";
    for await (const part of response) text += part;
    return text;
  });
  assert.deepEqual(new Set(await Promise.all(answers)), new Set(["here"]));
});
