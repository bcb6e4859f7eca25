import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { Registry } from "prom-client";
import { EventHistory } from "#coordinator/event-history";
import { CoordinatorHttp, type CoordinatorHttpOptions } from "#coordinator/http";
import type { LockstepEvent } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";

async function serve(
  t: { after: (cleanup: () => Promise<void>) => void },
  options: Partial<CoordinatorHttpOptions> = {},
): Promise<{ url: string; bus: InProcessEventBus }> {
  const bus = new InProcessEventBus();
  const http = new CoordinatorHttp({
    host: "127.0.0.1",
    port: 0,
    registry: new Registry(),
    isReady: () => true,
    bus,
    nowMs: () => 1_000,
    ...options,
  });
  const url = `http://127.0.0.1:${await http.listen()}`;
  t.after(() => http.close());
  return { url, bus };
}

const phase = (detail: string): LockstepEvent => ({
  type: "phase.changed",
  phase: "preparing",
  detail,
});

function step(number: number): LockstepEvent {
  return {
    type: "step.completed",
    step: number,
    totalSteps: 1_000_000,
    epoch: 0,
    loss: 1,
    learningRate: 1,
    gradientNorm: 1,
    numRows: 1,
    numTokens: 1,
    stepSeconds: 1,
    syncSeconds: 1,
    tokensPerSecond: 1,
  };
}

test("health, readiness and metrics", async (t) => {
  let isReady = false;
  const { url } = await serve(t, { isReady: () => isReady });
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  assert.equal((await fetch(`${url}/readyz`)).status, 503);
  isReady = true;
  assert.equal((await fetch(`${url}/readyz`)).status, 200);
  const metrics = await fetch(`${url}/metrics`);
  assert.equal(metrics.status, 200);
  assert.match(metrics.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
  assert.equal((await fetch(`${url}/nothing`)).status, 404);
});

test("with a token, only health and the page's files are open", async (t) => {
  const { url } = await serve(t, { token: "s3cret" });
  for (const path of ["/healthz", "/main.js", "/dashboard.css", "/login"]) {
    assert.equal((await fetch(url + path)).status, 200, path);
  }
  for (const path of ["/metrics", "/events", "/metrics/", "//metrics", "/nothing"]) {
    assert.equal((await fetch(url + path)).status, 401, path);
  }
  const headers = { authorization: "Bearer s3cret" };
  assert.equal((await fetch(`${url}/metrics`, { headers })).status, 200);
});

test("a port in use and an unprotected host are told by name", async (t) => {
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
  const address = holder.address();
  assert.ok(typeof address === "object" && address !== null);
  t.after(() => new Promise<void>((resolve) => holder.close(() => resolve())));
  await assert.rejects(serve(t, { port: address.port }), {
    code: "E_PORT_IN_USE",
    message: `The metrics server of the coordinator cannot listen on 127.0.0.1:${address.port}: the port is in use.`,
  });
  await assert.rejects(serve(t, { host: "0.0.0.0" }), { code: "E_INSECURE_HTTP" });
});

test("whoever asks for a path's headers alone is answered, also where the path has a stream", async (t) => {
  const { url } = await serve(t);
  const answers: (readonly [string, number])[] = [];
  for (const path of ["/", "/metrics", "/healthz", "/events"]) {
    const signal = AbortSignal.timeout(10_000);
    answers.push([path, (await fetch(`${url}${path}`, { method: "HEAD", signal })).status]);
  }
  assert.deepEqual(Object.fromEntries(answers), {
    ...{ "/": 200, "/metrics": 200, "/healthz": 200 },
    "/events": 404,
  });
});

test("the stream tells the past first, then what happens", async (t) => {
  const { url, bus } = await serve(t);
  bus.publish(phase("first"));
  bus.publish(phase("second"));
  bus.publish(step(1));
  const response = await fetch(`${url}/events`);
  const decoder = new TextDecoder();
  let received = "";
  for await (const chunk of response.body ?? []) {
    received += decoder.decode(chunk as Uint8Array, { stream: true });
    if (received.includes("event: live") && !received.includes("third"))
      bus.publish(phase("third"));
    if (received.includes("third")) break;
  }
  const messages = received.split("\n\n").filter((message) => message !== "");
  assert.equal(messages[0], "retry: 2000\nevent: reset\ndata: {}");
  assert.equal(
    messages[1],
    'data: {"timeMs":1000,"type":"phase.changed","phase":"preparing","detail":"second"}',
  );
  assert.match(messages[2] ?? "", /^data: .*"step.completed"/);
  assert.equal(messages[3], "event: live\ndata: {}");
  assert.match(messages[4] ?? "", /third/);
});

test("a history is bounded, keeps the first and the latest step, and its order", () => {
  const bus = new InProcessEventBus();
  let nowMs = 0;
  const history = new EventHistory(bus, () => nowMs++);
  const numSteps = 20_000;
  for (let number = 1; number <= numSteps; number++) bus.publish(step(number));
  const steps = history.events().map(({ event }) => (event as { step: number }).step);
  assert.ok(steps.length > 1_000 && steps.length <= 4_097, String(steps.length));
  assert.equal(steps[0], 1);
  assert.equal(steps.at(-1), numSteps);
  assert.deepEqual(
    steps,
    [...steps].sort((a, b) => a - b),
  );
  // Thinned evenly: no gap much larger than the others.
  const gaps = steps.slice(2).map((value, index) => value - (steps[index + 1] ?? 0));
  assert.ok(Math.max(...gaps) <= 16, String(Math.max(...gaps)));
});
