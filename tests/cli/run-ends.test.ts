import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { listeningPorts } from "#tests/support/processes";
import { type LinesOutcome, runLines } from "#tests/support/run-lines";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// A run in real processes ends when it is over, whoever is still connected to it.

const certificates = join(packageRoot, "tests/fixtures/tls");
const tlsKeys = [
  ...["--tls_ca_file", join(certificates, "ours-ca.pem")],
  ...["--tls_cert_file", join(certificates, "ours.pem")],
  ...["--tls_key_file", join(certificates, "ours.key")],
];
const limit = { timeout: 120_000 };
const engine = join(packageRoot, "dist/tests/support/fake-engine.js");
let job: TinyJob;

before(async () => {
  job = await createTinyJob({ engine_module: engine });
});

after(() => job.remove());

for (const [name, keys, flags] of [
  ["plain", [], []],
  ["TLS", tlsKeys, [...tlsKeys, "--tls_server_name", "lockstep"]],
] as const) {
  test(`silent connections on every port keep no process alive, ${name}`, limit, async () => {
    const sockets: Socket[] = [];
    const ports = new Set<number>();
    const workers: Promise<LinesOutcome>[] = [];
    const output = join(job.directory, name);
    const outcome = await lockstepCommand(
      ["coordinator", job.configFile, "--json-logs", "--output_dir", output, ...keys],
      join(job.directory, "cache"),
      (event, { pid = 0 }) => {
        const text = event.type === "note" ? event.text : "";
        const [, address] = /--coordinator (\S+)/.exec(text) ?? [];
        if (address !== undefined) workers.push(startWorker(address, flags));
        if (event.type !== "worker.joined" || sockets.length > 0) return;
        // Of the coordinator's control, shards and HTTP, and of the worker's metrics.
        for (const process of [pid, event.pid]) {
          for (const port of listeningPorts(process)) ports.add(port);
        }
        for (const port of ports) sockets.push(...silentConnections(port));
      },
    );
    const [worker] = await Promise.all(workers);
    for (const socket of sockets) socket.destroy();
    assert.equal(outcome.code, 0, outcome.stderr);
    // Whatever does not end in time is named there.
    assert.equal(outcome.stderr, "");
    assert.equal(worker?.code, 0, worker?.text);
    assert.doesNotMatch(worker?.text ?? "", /did not end/);
    assert.equal(ports.size, 5, `${[...ports].join()}`);
  });
}

const startWorker = (address: string, flags: readonly string[]): Promise<LinesOutcome> =>
  runLines(
    [
      ...[process.execPath, join(packageRoot, "bin/lockstep"), "worker", "--use-cpu"],
      ...["--coordinator", address, "--engine-module", engine, ...flags],
    ],
    { cwd: job.directory },
  );

/** They have said nothing, half an HTTP/2 preface, and half a TLS handshake. */
const silentConnections = (port: number): Socket[] =>
  ["", "PRI * HTTP/2.0\r\n", "\x16\x03\x01\x01\x00\x01"].map((bytes) => {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => {});
    socket.on("connect", () => socket.write(bytes, "latin1"));
    return socket;
  });
