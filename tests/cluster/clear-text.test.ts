import assert from "node:assert/strict";
import { createServer } from "node:net";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { assertSendAllowed } from "#lib/wire/security";
import { startCoordinator } from "#tests/support/started-coordinator";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { runWorker } from "#worker/worker";

const joinToken = "a join token that nobody reads";
const refused = { code: "E_INSECURE_CONNECT" };

/** Listens on every address of this machine, and counts who comes. */
async function listener(t: {
  after: (cleanup: () => void) => void;
}): Promise<{ port: number; numConnections: () => number }> {
  let count = 0;
  const server = createServer((socket) => {
    count += 1;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return { port: address.port, numConnections: () => count };
}

test("which address may be sent a token in clear text is read off its spelling", () => {
  const allowed = (address: string): void => assertSendAllowed(address, { joinToken });
  for (const host of ["127.0.0.1", "127.8.8.8", "localhost", "[::1]", "LocalHost"]) {
    allowed(`${host}:50051`);
  }
  for (const address of [
    "10.0.0.1:50051",
    "0.0.0.0:50051",
    "[::]:50051",
    "[fe80::1]:50051",
    "coordinator:50051",
    // Names that a resolver may send anywhere.
    "127.0.0.999:50051",
    "127.0.0.1.example:50051",
    "localhost.example:50051",
    "127.1:50051",
    "dns:///127.0.0.1:50051",
    "ipv4:127.0.0.1:50051,10.0.0.1:50051",
    "50051",
    "",
  ]) {
    assert.throws(() => allowed(address), refused, address);
    assertSendAllowed(address, { joinToken, insecure: true });
    assertSendAllowed(address, { joinToken, tls: { ca: "", cert: "", key: "" } });
    assertSendAllowed(address, {});
  }
});

test("a worker with a token makes no connection beyond loopback without TLS", async (t) => {
  const { port, numConnections } = await listener(t);
  // Linux connects it to this machine, so that whatever is sent arrives.
  const coordinatorAddress = `0.0.0.0:${port}`;
  const engineModule = new URL("../support/fake-engine.js", import.meta.url).href;
  await assert.rejects(
    runWorker({ coordinatorAddress, security: { joinToken }, engineModule }),
    refused,
  );
  const directory = await mkdtemp(join(tmpdir(), "lockstep-clear-text-"));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, "token");
  await writeFile(file, joinToken, { mode: 0o600 });
  const args = ["worker", "--coordinator", coordinatorAddress, "--join-token-file", file];
  const { code, stderr } = await lockstepCommand(args, directory);
  assert.equal(code, 1);
  assert.match(stderr, /E_INSECURE_CONNECT/);
  assert.ok(!stderr.includes(joinToken));
  assert.equal(numConnections(), 0);
});

test("a coordinator on loopback cannot send a worker's token elsewhere", async () => {
  const { coordinator, port } = await startCoordinator(2, {
    security: { joinToken },
    // The address of the shards: loopback, but not by its spelling.
    advertiseHost: "::ffff:127.0.0.1",
  });
  const running = coordinator.run();
  const engineModule = new URL("../support/fake-engine.js", import.meta.url).href;
  const worker = (insecure: boolean) =>
    runWorker({
      coordinatorAddress: `127.0.0.1:${port}`,
      security: { joinToken, insecure },
      deviceKind: "fake",
      engineModule,
    });
  await assert.rejects(worker(false), refused);
  // Whoever asks for it gets it.
  assert.equal((await worker(true)).outcome, "finished");
  assert.equal((await running).outcome, "finished");
});
