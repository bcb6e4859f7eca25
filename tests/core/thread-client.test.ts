import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { catalogued, ThreadClient } from "#lib/core/thread-client";
import type { TestCall } from "#tests/support/called-thread";

type Client = ThreadClient<string, TestCall, unknown, string>;

function start(workerData?: string): Client {
  const file = new URL("../support/called-thread.js", import.meta.url);
  return new ThreadClient(new Worker(file, { workerData }), {
    failed: (error) => catalogued(error) ?? new Error(`failed: ${error.message}`),
    died: (cause) => new Error(`died: ${cause instanceof Error ? cause.message : cause}`),
  });
}

test("each call gets its own answer, in whatever order they come, and notices come in between", async (t) => {
  const client = start();
  t.after(async () => client.close({ echo: "last" }));
  const notices: string[] = [];
  client.onNotice((notice) => notices.push(notice));
  assert.equal(await client.started(), "here");
  const slow = client.call({ echo: "slow", afterMs: 50, notice: "second" });
  const quick = client.call({ echo: ["quick"], notice: "first" });
  assert.deepEqual(await quick, ["quick"]);
  assert.deepEqual(notices, ["first"]);
  assert.equal(await slow, "slow");
  assert.deepEqual(notices, ["first", "second"]);
});

test("errors of the catalogue keep code, facts and words; others are what the client makes of them", async (t) => {
  const client = start();
  t.after(async () => client.close({ echo: "last" }));
  await assert.rejects(client.call({ fail: "catalogue" }), {
    ...{ code: "E_FRAME_INVALID", details: { reason: "told" } },
  });
  await assert.rejects(client.call({ fail: "other" }), { message: "failed: no entry" });
  assert.equal(await client.call({ echo: 1 }), 1);
  await assert.rejects(start("fail").started(), { code: "E_FRAME_INVALID" });
});

for (const [fail, message] of [
  ["crash", "died: out of the loop"],
  ["exit", "died: 7"],
] as const) {
  test(`a thread that dies (${fail}) ends the calls that wait and all later ones, and is told once`, async () => {
    const client = start();
    const deaths: string[] = [];
    client.onDeath((error) => deaths.push(error.message));
    await client.started();
    const waiting = assert.rejects(client.call({ afterMs: 60_000 }), { message });
    await client.call({ fail }).catch(() => {});
    await waiting;
    await assert.rejects(client.call({ echo: 1 }), { message });
    assert.deepEqual(deaths, [message]);
    await client.close({ echo: "last" });
  });
}

test("a thread that is closed has not died, and answers nothing more", async () => {
  const client = start();
  client.onDeath((error) => assert.fail(error));
  await client.started();
  await client.close({ echo: "last" });
  await assert.rejects(client.call({ echo: 1 }), /died/);
});
