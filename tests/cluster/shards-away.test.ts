import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, connect, type Server, type Socket } from "node:net";
import { test } from "node:test";
import { startShardThread } from "#coordinator/reducer/client";
import { splitAddress } from "#lib/core/address";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { freePorts } from "#tests/support/ports";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

const totalSteps = 4;
const awayMs = 1_500;

/** A way to a port that can be blocked: connections are cut and new ones refused. */
class Gate {
  readonly #target: number;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  readonly #port: number;

  constructor(target: number, port: number) {
    this.#target = target;
    this.#port = port;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  async open(): Promise<void> {
    const server = createServer((socket) => {
      const beyond = connect(this.#target, "127.0.0.1");
      for (const [one, other] of [
        [socket, beyond],
        [beyond, socket],
      ] as const) {
        this.#sockets.add(one);
        one.on("error", () => {});
        one.on("close", () => {
          this.#sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    server.listen(this.#port, "127.0.0.1");
    await once(server, "listening");
    this.#server = server;
  }

  block(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

test("six workers go on when the shards' ports were away for a while", limit, async () => {
  const gates: Gate[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    heartbeatTimeoutMs: 60_000,
    ...{ plannedWorkers: 6, minWorkers: 6 },
    startShard: async (options) => {
      const shard = await startShardThread(options);
      const gate = new Gate(splitAddress(shard.address).port, await freePorts(1));
      await gate.open();
      gates.push(gate);
      return new Proxy(shard, {
        get: (of, key) => {
          if (key === "address") return gate.address;
          const value: unknown = Reflect.get(of, key);
          return typeof value === "function" ? value.bind(of) : value;
        },
      });
    },
  });
  const workers = Array.from({ length: 6 }, () => spawnWorker(address));
  const away = (async () => {
    await recorder.until((event) => event.type === "group.leased" && event.step === 1);
    for (const gate of gates) gate.block();
    await new Promise((resolve) => setTimeout(resolve, awayMs));
    for (const gate of gates) await gate.open();
  })();
  const { mastersSha256 } = await coordinator.run();
  await away;
  for (const gate of gates) gate.block();
  assert.equal(mastersSha256, (await sequentialOracle(totalSteps)).mastersSha256);
  for (const { exited } of workers) {
    const { code, stderr } = await exited;
    assert.equal(code, 0, stderr);
  }
  assert.deepEqual(recorder.of("worker.quarantined"), []);
  assert.deepEqual(recorder.of("worker.lost"), []);
});
