import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { after, test } from "node:test";
import { Registry } from "prom-client";
import { CoordinatorHttp } from "#coordinator/http";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";

const numStrangers = 400;

const ends: (() => unknown)[] = [];
after(async () => {
  for (const end of ends.reverse()) await end();
});

/** A server with a token, and what it says of connections that it closed. */
async function served(): Promise<{ readonly port: number; readonly events: LockstepEvent[] }> {
  const bus = new InProcessEventBus();
  const events: LockstepEvent[] = [];
  bus.subscribe((event) => events.push(event));
  const server = new CoordinatorHttp({
    ...{ host: "127.0.0.1", port: 0, registry: new Registry(), bus, token: "secret" },
    isReady: () => true,
  });
  ends.push(async () => server.close());
  return { port: await server.listen(), events };
}

async function dial(port: number, text: string): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.on("error", () => {});
  ends.push(() => socket.destroy());
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
    socket.once("close", () => resolve());
  });
  socket.resume().write(text);
  return socket;
}

test("strangers who ask for nothing are few and stay a short time; who has the token gets through", async () => {
  const { port, events } = await served();
  const follower = await fetch(`http://127.0.0.1:${port}/events`, {
    headers: { authorization: "Bearer secret" },
  });
  const strangers: Socket[] = [];
  for (let i = 0; i < numStrangers; i++) {
    strangers.push(await dial(port, "GET /metrics HTTP/1.1\r\nX-Slow: "));
  }
  const closed = strangers.map(
    async (socket) =>
      new Promise<void>((resolve) => {
        if (socket.closed) resolve();
        else socket.once("close", () => resolve());
      }),
  );
  const { status } = await fetch(`http://127.0.0.1:${port}/metrics`, {
    headers: { authorization: "Bearer secret" },
  });
  assert.equal(status, 200);
  // All of them, without a word from here.
  await Promise.all(closed);
  const reader = follower.body?.getReader();
  assert.equal((await reader?.read())?.done, false);
  await reader?.cancel();
  const reasons = events.flatMap((event) =>
    event.type === "connections.refused" && event.port === "http" ? [event.reason] : [],
  );
  assert.ok(reasons.includes("crowd"), reasons.join());
  assert.ok(reasons.includes("silence"), reasons.join());
  // A person is told of the crowd, once.
  const notes = events.flatMap((event) => (event.type === "note" ? [event.text] : []));
  assert.equal(notes.length, 1, notes.join("\n"));
  assert.match(notes[0] ?? "", /http port are closed: more come at once/);
});
