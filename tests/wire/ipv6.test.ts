import assert from "node:assert/strict";
import dns from "node:dns";
import os from "node:os";
import { test } from "node:test";
import { Registry } from "prom-client";
import { CoordinatorHttp } from "#coordinator/http";
import { hostPort, isLoopback, splitAddress } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { createHttpServer, listenHttp } from "#lib/core/http-server";
import { ControlClient } from "#lib/wire/control-client";
import { registerControlService } from "#lib/wire/control-server";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { GrpcServer } from "#lib/wire/grpc-server";
import { isLoopbackAddress } from "#lib/wire/security";

test("an address has brackets around IPv6 and comes apart into the host of a socket", () => {
  for (const [host, port, address] of [
    ["127.0.0.1", 50_051, "127.0.0.1:50051"],
    ["::1", 0, "[::1]:0"],
    ["fe80::1%eth0", 9464, "[fe80::1%eth0]:9464"],
    ["coordinator.lockstep.svc", 50_051, "coordinator.lockstep.svc:50051"],
  ] as const) {
    assert.equal(hostPort(host, port), address);
    assert.deepEqual(splitAddress(address), { host, port });
    assert.equal(hostPort(splitAddress(address).host, port), address);
  }
  assert.equal(hostPort("[::1]", 1), "[::1]:1");
  assert.equal(new URL(`http://${hostPort("::1", 80)}/metrics`).hostname, "[::1]");
});

test("the machine's own addresses are loopback, with and without brackets", () => {
  for (const host of ["localhost", "::1", "[::1]", "127.8.0.1"]) assert.ok(isLoopback(host), host);
  for (const host of ["::", "0.0.0.0", "fe80::1", "127.example.org"]) {
    assert.ok(!isLoopback(host), host);
  }
  assert.ok(isLoopbackAddress("[::1]:50051"));
  assert.ok(!isLoopbackAddress("[fe80::1]:50051"));
});

test("messages have brackets around IPv6", () => {
  const facts = { host: "::1", port: 9464, what: "gRPC server" };
  assert.match(
    new LockstepError("E_PORT_IN_USE", facts).message,
    /listen on \[::1\]:9464: the port/,
  );
  const failed = new LockstepError("E_LISTEN_FAILED", { host: "::", port: 1, reason: "EACCES" });
  assert.match(failed.message, /^Listening on \[::\]:1 failed/);
});

const hasIpv6 = Object.values(os.networkInterfaces()).some((all) =>
  all?.some(({ address }) => address === "::1"),
);

test("servers of both kinds listen on ::1 and are reached there", {
  skip: hasIpv6 ? false : "this machine has no ::1",
}, async (t) => {
  const http = new CoordinatorHttp({
    ...{ host: "[::1]", port: 0, registry: new Registry(), isReady: () => true },
    bus: new InProcessEventBus(),
  });
  const port = await http.listen();
  t.after(() => http.close());
  assert.equal((await fetch(`http://${hostPort("::1", port)}/healthz`)).status, 200);

  const server = new GrpcServer({ security: {}, maxReceiveBytes: 100_000 });
  const peers: string[] = [];
  registerControlService(server, {
    register: async (_, { peer }) => {
      peers.push(peer);
      throw new LockstepError("E_RUN_OVER", { directory: "run" });
    },
    admit: () => {},
    checkWeights: async () => ({ isIntact: true }),
    heartbeat: async () => ({ version: 0 }),
    nextTask: async () => ({ kind: "wait" }),
    completeTask: async () => ({ stale: false }),
    reportFailure: async () => {},
    leave: async () => {},
  });
  const address = hostPort("::1", await server.listen("::1", 0));
  t.after(async () => server.close(0));
  const client = new ControlClient({ address, security: {} });
  t.after(() => client.close());
  await assert.rejects(
    client.register({
      ...{ protocolVersion: 1, name: "", host: "", pid: 1, deviceKind: "", deviceType: "cpu" },
      ...{
        advisesBf16: false,
        bf16Slowdown: 0,
        advisesFp16: false,
        fp16Slowdown: 0,
        incarnation: "",
      },
    }),
  );
  assert.equal(peers.length, 1);
  assert.match(peers[0] ?? "", /^\[::1\]:\d+$/);
});

test("a name with several addresses has one server, whose connections are all counted", async (t) => {
  const addresses = [
    { address: "127.0.0.1", family: 4 },
    { address: "127.0.0.2", family: 4 },
  ];
  t.mock.method(dns, "lookup", (name: string, ...rest: readonly unknown[]) => {
    const done = rest.at(-1) as (error: null, found: unknown, family?: number) => void;
    const { all } = rest[0] as dns.LookupOptions;
    if (all === true) done(null, addresses);
    else done(null, name === "localhost" ? "127.0.0.1" : name, 4);
  });
  const options = {
    ...{ host: "localhost", port: 0, registry: new Registry(), isReady: () => true, what: "test" },
  };
  const { server } = createHttpServer(options);
  t.after(() => server.close());
  const port = await listenHttp(server, options);
  assert.equal((await fetch(`http://127.0.0.1:${port}/healthz`)).status, 200);
  await assert.rejects(fetch(`http://127.0.0.2:${port}/healthz`));
});
