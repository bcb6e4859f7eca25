import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { type TestContext, test } from "node:test";
import type { LeftRun } from "#run/left-run";
import { controlPort, tellTakenPorts } from "#run/taken-port";
import { freePorts } from "#tests/support/ports";

const threads = { reducers: null, reducer_processes: 0, reducer_shards: 2 } as const;

async function hold(t: TestContext, port: number): Promise<() => void> {
  const server = createServer().listen(port, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  return () => server.close();
}

async function toldOf(config: Parameters<typeof tellTakenPorts>[0]): Promise<string[]> {
  const told: string[] = [];
  await tellTakenPorts(config, (line) => told.push(line));
  return told.map((line) => /^warning: (\S+) is in use/.exec(line)?.[1] ?? line);
}

test("one that stands by says which of its ports another program has", async (t) => {
  const port = await freePorts(4);
  const listen = `127.0.0.1:${port}`;
  assert.deepEqual(await toldOf({ ...threads, listen }), []);
  await hold(t, port + 2);
  assert.deepEqual(await toldOf({ ...threads, listen }), [`127.0.0.1:${port + 2}`]);
  await hold(t, port);
  const both = [`127.0.0.1:${port}`, `127.0.0.1:${port + 2}`];
  assert.deepEqual(await toldOf({ ...threads, listen }), both);
  // The next ports are not its own where shards are processes elsewhere.
  const reducers = ["127.0.0.1:1"];
  assert.deepEqual(await toldOf({ ...threads, listen, reducers }), [listen]);
  const ownReducers = { ...threads, reducer_processes: 2 };
  assert.deepEqual(await toldOf({ ...ownReducers, listen }), [listen]);
  // It keeps none of them.
  await hold(t, port + 1);
});

test("any port, a name that nobody knows and an address of another machine are told by who listens", async () => {
  assert.deepEqual(await toldOf({ ...threads, listen: "127.0.0.1:0" }), []);
  assert.deepEqual(await toldOf({ ...threads, listen: "lockstep.invalid:29500" }), []);
  assert.deepEqual(await toldOf({ ...threads, listen: "192.0.2.1:29500" }), []);
});

test("a coordinator that comes back waits for its port and those of its shards", async (t) => {
  const port = await freePorts(4);
  const listen = `127.0.0.1:${port}`;
  const left = { runId: "r" } as unknown as LeftRun;
  const letGo = new Map([
    [`127.0.0.1:${port}`, await hold(t, port)],
    [`127.0.0.1:${port + 2}`, await hold(t, port + 2)],
  ]);
  const told: string[] = [];
  const note = (line: string): void => {
    const address = /^warning: (\S+), where this run was, is in use/.exec(line)?.[1] ?? line;
    told.push(address);
    letGo.get(address)?.();
  };
  assert.equal(await controlPort({ ...threads, listen }, undefined, { left }, { note }), port);
  assert.deepEqual(told, [...letGo.keys()]);
  // Its own, where any port was asked for; its shards' are any others then.
  const any = { ...threads, listen: "127.0.0.1:0" };
  letGo.set(listen, await hold(t, port));
  await hold(t, port + 1);
  assert.equal(await controlPort(any, { ports: { control: port } }, {}, { note }), port);
  assert.deepEqual(told.slice(2), [listen]);
});

test("a coordinator that comes back does not wait for the reducers that outlived it", async (t) => {
  const port = await freePorts(4);
  for (const index of [1, 2]) await hold(t, port + index);
  const config = { ...threads, reducer_processes: 2, listen: `127.0.0.1:${port}` };
  const never = { note: (line: string) => assert.fail(line) };
  assert.equal(await controlPort(config, { ports: { control: port } }, {}, never), port);
});

test("nobody waits at a first start, or who is stopped", async (t) => {
  const port = await freePorts(4);
  const config = { ...threads, listen: `127.0.0.1:${port}` };
  await hold(t, port);
  const never = { note: (line: string) => assert.fail(line) };
  assert.equal(await controlPort(config, undefined, {}, never), port);
  const stop = new AbortController();
  const own = { ports: { control: port } };
  const stopped = { note: () => stop.abort(), signal: stop.signal };
  assert.equal(await controlPort(config, own, {}, stopped), port);
  assert.ok(stop.signal.aborted);
});
