import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "node:tls";
import { Registry } from "prom-client";
import { CoordinatorHttp } from "#coordinator/http";
import { ReducerShard } from "#coordinator/reducer/client";
import { splitAddress } from "#lib/core/address";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { callUnary, createChannelClient } from "#lib/wire/grpc-client";
import { GrpcServer } from "#lib/wire/grpc-server";
import { loadWireSecurity, type WireSecurity } from "#lib/wire/security";
import { freePorts } from "#tests/support/ports";
import { adamW, smallLayout } from "#tests/reducer/gradients";
import { testLife } from "#tests/support/members";
import { MountedSecret, TestAuthority } from "#tests/support/certificates";

const closers: (() => Promise<void> | void)[] = [];
after(async () => {
  for (const close of closers.reverse()) await close();
});

let first: TestAuthority;
let second: TestAuthority;
before(async () => {
  [first, second] = await Promise.all([TestAuthority.create(), TestAuthority.create()]);
  closers.push(async () => {
    await Promise.all([first.remove(), second.remove()]);
  });
});

/** A mounted secret with a certificate of this name. */
async function mount(authority: TestAuthority, name: string): Promise<MountedSecret> {
  const directory = join(first.directory, `mount-${Math.random()}`);
  await mkdir(directory);
  const secret = new MountedSecret(directory);
  await renew(secret, authority, name);
  return secret;
}

async function renew(secret: MountedSecret, authority: TestAuthority, name: string): Promise<void> {
  const { cert, key } = await authority.issue(name);
  await secret.write({
    "tls.crt": await readFile(cert),
    "tls.key": await readFile(key),
    "ca.crt": await readFile(authority.caFile),
  });
}

const securityOf = (secret: MountedSecret): Promise<WireSecurity> =>
  loadWireSecurity(
    {
      tlsCaFile: secret.file("ca.crt"),
      tlsCertFile: secret.file("tls.crt"),
      tlsKeyFile: secret.file("tls.key"),
    },
    assert.fail,
  );

/** The name in the certificate that a port shows. */
async function shownName(port: number, alpn: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { host: "127.0.0.1", port, rejectUnauthorized: false, ALPNProtocols: [alpn] },
      () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      },
    );
    socket.on("error", reject);
  });
}

/** Asks until the answer is the one that is waited for: files are looked at once a second. */
async function until<T>(ask: () => Promise<T>, wanted: T): Promise<void> {
  for (;;) {
    if ((await ask().catch(() => undefined)) === wanted) return;
    await delay(50);
  }
}

const limit = { timeout: 60_000 };
const ping = {
  path: "/test/Ping",
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: Buffer) => value,
  requestDeserialize: (value: Buffer) => value,
  responseSerialize: (value: Buffer) => value,
  responseDeserialize: (value: Buffer) => value,
} as const;

async function serve(
  security: WireSecurity,
  onTlsNews: (line: string) => void,
  port = 0,
): Promise<{ port: number; close: () => Promise<void> }> {
  const server = new GrpcServer({ security, maxReceiveBytes: 1_000, onTlsNews });
  server.addUnary(ping, async (_, { certificate }) => Buffer.from(certificate ?? "nobody"));
  const bound = await server.listen("127.0.0.1", port);
  return { port: bound, close: () => server.close(0) };
}

test(
  "a server follows a mounted secret; what is broken is told once and changes nothing",
  limit,
  async () => {
    const secret = await mount(first, "before");
    const news: string[] = [];
    const server = await serve(await securityOf(secret), (line) => news.push(line));
    closers.push(server.close);
    const name = (): Promise<string> => shownName(server.port, "h2");
    assert.equal(await name(), "before");

    await renew(secret, first, "renewed");
    await until(name, "renewed");
    assert.match(news.splice(0).join("|"), /^the TLS files changed; \S+ is in use, valid until /);

    const other = await first.issue("other");
    const broken: Readonly<Record<string, string | Buffer>>[] = [
      { "tls.crt": "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n" },
      { "tls.crt": "" },
      { "tls.key": await readFile(other.key) },
      { "ca.crt": "nothing" },
    ];
    for (const part of broken) {
      const whole = {
        "tls.crt": await readFile(secret.file("tls.crt")),
        "tls.key": await readFile(secret.file("tls.key")),
        "ca.crt": await readFile(secret.file("ca.crt")),
      };
      await secret.write({ ...whole, ...part });
      await until(async () => {
        assert.equal(await name(), "renewed");
        return news.length;
      }, 1);
      assert.match(
        news.splice(0).join(),
        /^warning: the TLS files changed, those before stay in use: /,
      );
      await secret.write(whole);
      await until(async () => {
        await name();
        return news.length;
      }, 1);
      assert.match(news.splice(0).join(), /is in use/);
    }
  },
);

test("a client's next connection uses what its files hold then", limit, async () => {
  const serverSecret = await mount(first, "server");
  const clientSecret = await mount(first, "worker-1");
  const old = await serve(await securityOf(serverSecret), () => {}, await freePorts(1));
  const security = await securityOf(clientSecret);
  const address = `localhost:${old.port}`;
  const client = createChannelClient({ address, security, maxReceiveBytes: 1_000 });
  closers.push(() => client.close());
  const whoAmI = async (): Promise<string> =>
    String(await callUnary(client, ping, Buffer.alloc(0), { address, security, timeoutMs: 5_000 }));
  assert.match(await whoAmI(), /^CN=worker-1, DNS:worker-1, /);
  // Both sides get certificates of another authority; the former ones are worth nothing to either.
  await old.close();
  await renew(serverSecret, second, "server");
  const renewed = await serve(await securityOf(serverSecret), () => {}, old.port);
  closers.push(renewed.close);
  await renew(clientSecret, second, "worker-2");
  await until(async () => (await whoAmI()).split(",")[0], "CN=worker-2");
});

test("the thread of a shard follows the files too", limit, async () => {
  const secret = await mount(first, "before");
  const shard = await ReducerShard.start({
    ...{ shardIndex: 0, numShards: 1, layout: smallLayout(1, "bfloat16"), gradientGroups: 1 },
    ...{
      life: testLife,
      optimizer: adamW,
      listenHost: "127.0.0.1",
      security: await securityOf(secret),
    },
  });
  closers.push(() => shard.close());
  const { port } = splitAddress(shard.address);
  assert.equal(await shownName(port, "h2"), "before");
  await renew(secret, first, "renewed");
  await until(() => shownName(port, "h2"), "renewed");
});

test("metrics and dashboard have TLS, whose certificate follows its files", limit, async () => {
  const secret = await mount(first, "before");
  const token = "0123456789abcdef";
  const news: string[] = [];
  const http = new CoordinatorHttp({
    ...{ host: "0.0.0.0", port: 0, registry: new Registry(), isReady: () => true, token },
    bus: new InProcessEventBus(),
    tls: { cert: secret.file("tls.crt"), key: secret.file("tls.key") },
    onTlsNews: (line) => news.push(line),
  });
  const port = await http.listen();
  closers.push(() => http.close());
  const ca = await readFile(first.caFile);
  const ask = (path: string, method: string, body: string): Promise<[number, string]> =>
    new Promise((resolve, reject) => {
      const headers = {
        "content-type": "application/x-www-form-urlencoded",
        ...(method === "GET" ? { authorization: `Bearer ${token}` } : {}),
      };
      const sent = request({ host: "localhost", port, path, method, ca, headers }, (answer) => {
        answer.resume();
        resolve([answer.statusCode ?? 0, String(answer.headers["set-cookie"]?.[0])]);
      });
      sent.on("error", reject);
      sent.end(body);
    });
  assert.equal((await ask("/metrics", "GET", ""))[0], 200);
  const [status, cookie] = await ask("/login", "POST", `token=${token}`);
  assert.equal(status, 303);
  assert.match(cookie, /; HttpOnly; SameSite=Strict; Secure$/);
  await assert.rejects(fetch(`http://127.0.0.1:${port}/healthz`));
  await renew(secret, first, "renewed");
  await until(() => shownName(port, "http/1.1"), "renewed");
  assert.equal(news.length, 1);
});

test("files that do not belong together, and half of them, are refused by name", async () => {
  const { cert, key } = await first.issue("one");
  const { key: otherKey } = await first.issue("two");
  const tls = (ca?: string, tlsCertFile?: string, tlsKeyFile?: string): Promise<WireSecurity> =>
    loadWireSecurity({ tlsCaFile: ca, tlsCertFile, tlsKeyFile }, () => {});
  const refused = (problem: RegExp) => ({ code: "E_TLS_FILES", message: problem });
  await assert.rejects(tls(first.caFile, cert, otherKey), refused(/cannot be used: .*mismatch/));
  await assert.rejects(tls(key, cert, key), refused(/one-\S+\.key cannot be used/));
  await assert.rejects(tls(first.caFile), refused(/mutual TLS needs an authority, a/));
  await assert.rejects(tls(undefined, cert, key), refused(/mutual TLS needs/));
  const empty = join(first.directory, "empty.pem");
  await writeFile(empty, "");
  await assert.rejects(tls(empty, cert, key), refused(/empty\.pem cannot be used/));
  await assert.rejects(tls(first.caFile, join(first.directory, "none"), key), {
    code: "E_FILE_NOT_FOUND",
  });
});
