import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { NatsLink, type NatsSettings } from "#lib/wire/nats/connection";
import { parseNatsUrl } from "#lib/wire/nats/servers";
import { TestAuthority } from "#tests/support/certificates";
import { natsSettings, startNats } from "#tests/support/nats-server";
import { needs } from "#tests/support/tools";

const withServer = needs("natsServer");
let directory: string;
let authority: TestAuthority;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-nats-files-"));
  authority = await TestAuthority.create();
});
after(async () => {
  await rm(directory, { recursive: true, force: true });
  await authority.remove();
});

const open = (settings: NatsSettings, news: string[] = []): Promise<NatsLink> =>
  NatsLink.open(settings, {
    role: "watcher",
    name: "test",
    onNews: (line) => news.push(line),
    timeoutMs: 5_000,
  });

async function secret(name: string, text: string): Promise<string> {
  const file = join(directory, name);
  await writeFile(file, text);
  await chmod(file, 0o600);
  return file;
}

test("addresses of servers are read, and what is none is refused by name", () => {
  assert.deepEqual(parseNatsUrl("nats://127.0.0.1"), {
    addresses: ["127.0.0.1:4222"],
    isTls: false,
    remote: [],
  });
  assert.deepEqual(parseNatsUrl("tls://a.example:1, tls://[::1]:2,tls://b"), {
    addresses: ["a.example:1", "[::1]:2", "b:4222"],
    isTls: true,
    remote: ["a.example:1", "b:4222"],
  });
  const refused: readonly (readonly [url: string, problem: RegExp])[] = [
    ["", /no host/],
    ["nats://", /no host/],
    ["http://a:1", /scheme is http/],
    ["nats://a:1,tls://b:1", /some of its servers/],
    ["nats://me:secret@a:1", /a secret does not belong/],
    ["nats://a:0", /0 is no port/],
    ["nats://a:70000", /70000 is no port/],
    ["nats://a:1/path", /a path/],
    ["nats://a:b", /no HOST:PORT/],
    [Array(33).fill("nats://a").join(), /33 of at most 32/],
  ];
  for (const [url, problem] of refused) {
    assert.throws(() => parseNatsUrl(url), { code: "E_NATS_URL", message: problem }, url);
  }
  assert.throws(
    () => parseNatsUrl("nats://me:secret@a:1"),
    (error: Error) => !error.message.includes("secret@"),
  );
});

test("a secret goes beyond this machine with TLS only", async () => {
  const tokenFile = await secret("token", "0123456789abcdef0123456789abcdef");
  const url = "nats://nats.example:4222";
  await assert.rejects(open(natsSettings(url, { tokenFile })), {
    code: "E_NATS_INSECURE",
    message: /NATS token would go to nats\.example:4222/,
  });
  await assert.rejects(open(natsSettings("nats://127.0.0.1:1", { tlsCaFile: authority.caFile })), {
    code: "E_TLS_FILES",
    message: /nothing would be encrypted/,
  });
});

test("credentials that cannot be used are refused by name, without what they hold", async () => {
  const cases: readonly (readonly [text: string, problem: RegExp])[] = [
    ["", /empty/],
    ["two words", /several lines or blanks/],
    ["nocolon", /neither a seed nor USER:PASSWORD/],
    ["SUAAAAAAAAAAAAAAAA", /damaged/],
    ["-----BEGIN NATS USER JWT-----\nhidden\n", /damaged/],
  ];
  for (const [index, [text, problem]] of cases.entries()) {
    const credentialsFile = await secret(`bad-${index}`, text);
    await assert.rejects(
      open(natsSettings("nats://127.0.0.1:1", { credentialsFile })),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, "E_NATS_CREDENTIALS", text);
        assert.match(error.message, problem);
        assert.doesNotMatch(error.message, /hidden|SUAAA/);
        return true;
      },
    );
  }
  const both = { credentialsFile: await secret("c", "a:b"), tokenFile: await secret("t", "x") };
  await assert.rejects(open(natsSettings("nats://127.0.0.1:1", both)), {
    code: "E_NATS_CREDENTIALS",
    message: /given too/,
  });
});

test("a port at which nothing listens is told", async () => {
  await assert.rejects(open(natsSettings("nats://127.0.0.1:1")), {
    code: "E_NATS_UNAVAILABLE",
    message: /127\.0\.0\.1:1: nothing listens there/,
  });
});

test("an old server is refused by its version", async (t) => {
  const port = await oldServer(t);
  await assert.rejects(open(natsSettings(`nats://127.0.0.1:${port}`)), {
    code: "E_NATS_VERSION",
    message: /version 2\.9\.10; this takes 2\.11\.0/,
  });
});

/** A server of an old release, as far as a client sees it. */
async function oldServer(t: { after(end: () => void): void }): Promise<number> {
  const server: Server = createServer((socket) => {
    socket.write('INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"proto":1}\r\n');
    socket.on("data", (data) => {
      if (data.toString().includes("PING")) socket.write("PONG\r\n");
    });
    socket.on("error", () => {});
    t.after(() => socket.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return address.port;
}

test("a connection is lost, told, and back when the server is", withServer, async () => {
  const nats = await startNats();
  const news: string[] = [];
  try {
    const link = await open(nats.settings, news);
    const reopened = new Promise<void>((resolve) => link.onReopened(resolve));
    const [server] = nats.servers;
    await server?.stop();
    await server?.start();
    await reopened;
    assert.equal(link.isOpen, true);
    assert.match(news[0] ?? "", /is lost/);
    assert.match(news[1] ?? "", /again after/);
    await link.close();
    assert.equal(link.isOpen, false);
  } finally {
    await nats.close();
  }
});

test("users, tokens, nkeys and TLS as a server asks for them", withServer, async () => {
  const { cert, key } = await authority.issue("nats-server");
  const client = await authority.issue("client");
  const token = "0123456789abcdef0123456789abcdef";
  const tls = (verify: boolean): string =>
    `tls { cert_file: ${JSON.stringify(cert)}, key_file: ${JSON.stringify(key)}, ca_file: ${JSON.stringify(authority.caFile)}, verify: ${verify} }`;
  // The seed and the public key are a pair of `nk -gen user`.
  const { createUser } = (await import("nats")).nkeys;
  const user = createUser();
  const seed = new TextDecoder().decode(user.getSeed());
  const plain = await startNats({
    config: `authorization { users: [ { user: me, password: "pass:word" }, { nkey: ${user.getPublicKey()} } ] }`,
  });
  const encrypted = await startNats({
    config: `${tls(true)}\nauthorization { token: "${token}" }`,
  });
  const [withToken, withUser, withSeed] = [
    { tokenFile: await secret("token", token) },
    { credentialsFile: await secret("user", "me:pass:word\n") },
    { credentialsFile: await secret("seed", `${seed}\n`) },
  ];
  try {
    for (const right of [withUser, withSeed]) {
      await (await open({ ...plain.settings, ...right })).close();
    }
    const other = new TextDecoder().decode(createUser().getSeed());
    for (const wrong of [
      {},
      { credentialsFile: await secret("wrong", "me:word") },
      { credentialsFile: await secret("other", other) },
      withToken,
    ]) {
      await assert.rejects(open({ ...plain.settings, ...wrong }), {
        code: "E_NATS_REFUSED",
        message: /does not accept the credentials/,
      });
    }
    const address = encrypted.settings.url.replace("nats://", "");
    const files = {
      tlsCaFile: authority.caFile,
      tlsCertFile: client.cert,
      tlsKeyFile: client.key,
    };
    await (await open(natsSettings(`tls://${address}`, { ...files, ...withToken }))).close();
    // Of another authority, without a certificate of its own, and a server without TLS.
    const { tlsCaFile } = files;
    for (const wrong of [
      natsSettings(`tls://${address}`, withToken),
      natsSettings(`tls://${plain.settings.url.replace("nats://", "")}`, { tlsCaFile }),
    ]) {
      await assert.rejects(open(wrong), { code: "E_NATS_REFUSED" });
    }
    await assert.rejects(open(natsSettings(`tls://${address}`, { tlsCaFile, ...withToken })));
  } finally {
    await plain.close();
    await encrypted.close();
  }
});

test("what is asked of a connection that is lost is not waited for", withServer, async (t) => {
  const nats = await startNats();
  t.after(() => nats.close());
  const link = await open(nats.settings);
  t.after(() => link.close());
  assert.equal(await link.ask(async () => 7), 7);
  const refused = assert.rejects(
    link.ask(() => Promise.reject(new RangeError("no"))),
    RangeError,
  );
  const unanswered = assert.rejects(
    link.ask(() => new Promise(() => {})),
    { code: "DISCONNECT" },
  );
  const reopened = new Promise<void>((resolve) => link.onReopened(resolve));
  await refused;
  await nats.servers[0]?.stop("SIGKILL");
  await unanswered;
  await assert.rejects(
    link.ask(() => assert.fail("it is asked")),
    { code: "DISCONNECT" },
  );
  await nats.servers[0]?.start();
  await reopened;
  assert.equal(await link.ask(async () => 8), 8);
});
