import assert from "node:assert/strict";
import { once } from "node:events";
import { request, type IncomingHttpHeaders } from "node:http";
import { connect } from "node:net";
import { test } from "node:test";
import { Registry } from "prom-client";
import { CoordinatorHttp, type CoordinatorHttpOptions } from "#coordinator/http";
import { InProcessEventBus } from "#lib/wire/event-bus";

const token = "a token of twenty-four";

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

interface Asked {
  readonly path: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Asks with headers that fetch does not let a caller set. */
async function serve(
  t: { after: (cleanup: () => Promise<void>) => void },
  options: Partial<CoordinatorHttpOptions> = {},
): Promise<{ port: number; ask: (asked: Asked) => Promise<Answer> }> {
  const http = new CoordinatorHttp({
    host: "127.0.0.1",
    port: 0,
    registry: new Registry(),
    isReady: () => true,
    bus: new InProcessEventBus(),
    token,
    ...options,
  });
  const port = await http.listen();
  t.after(() => http.close());
  const ask = ({ path, method = "GET", headers = {}, body }: Asked): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const sent = request({ host: "127.0.0.1", port, path, method, headers }, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (chunk: string) => {
          text += chunk;
        });
        answer.on("end", () =>
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }),
        );
      });
      sent.on("error", reject);
      sent.end(body);
    });
  return { port, ask };
}

/** The first line of what a server says to bytes. */
async function answerTo(port: number, bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
  try {
    const [first] = (await once(socket, "data")) as [Buffer];
    return first.toString("latin1").split("\r\n")[0] ?? "";
  } finally {
    socket.destroy();
  }
}

const form = (given: string): Asked => ({
  path: "/login",
  method: "POST",
  headers: { "content-type": "application/x-www-form-urlencoded" },
  body: new URLSearchParams({ token: given }).toString(),
});

test("a token in an address opens nothing, whatever the path, and is told of", async (t) => {
  const { ask } = await serve(t);
  const given = encodeURIComponent(token);
  for (const path of ["/metrics", "/events", "/", "/login", "/healthz", "/nothing"]) {
    for (const query of [`token=${given}`, "token", `a=1&token=${given}`, `%74oken=${given}`]) {
      const answer = await ask({ path: `${path}?${query}` });
      assert.equal(answer.status, 400, `${path}?${query}`);
      assert.match(answer.text, /authorization: Bearer, people sign in at \/login/);
      assert.ok(!answer.text.includes(token));
    }
  }
  const headers = { authorization: `Bearer ${token}` };
  assert.equal((await ask({ path: `/metrics?token=${given}`, headers })).status, 400);
  assert.equal((await ask({ path: "/metrics", headers })).status, 200);
});

test("the form begins a session, whose cookie is not the token and is kept from scripts", async (t) => {
  const { ask } = await serve(t);
  const root = await ask({ path: "/" });
  assert.equal(root.status, 303);
  assert.equal(root.headers.location, "login");
  const page = await ask({ path: "/login" });
  assert.equal(page.status, 200);
  assert.match(String(page.headers["content-security-policy"]), /form-action 'self'/);
  assert.ok(!/<script(?! type="module" src="login.js">)/.test(page.text));

  const wrong = await ask(form("a guess"));
  assert.equal(wrong.status, 401);
  assert.equal(wrong.headers["set-cookie"], undefined);
  assert.match(wrong.text, /The token is wrong\./);

  const right = await ask(form(`  ${token}\n`));
  assert.equal(right.status, 303);
  assert.equal(right.headers.location, "./");
  const cookie = String(right.headers["set-cookie"]?.[0]);
  assert.match(cookie, /; HttpOnly; SameSite=Strict$/);
  assert.ok(!cookie.includes("token") && !cookie.includes("twenty"));
  const session = cookie.split(";")[0] ?? "";
  for (const path of ["/", "/metrics"]) {
    assert.equal((await ask({ path, headers: { cookie: `a=b; ${session}` } })).status, 200, path);
  }
  // Neither another expiry, nor another end, nor one of another process.
  const [name = "", value = ""] = session.split("=");
  const [expiry = "", seal = ""] = value.split(".");
  const forged = [`${Number(expiry) + 1}.${seal}`, `${expiry}.${seal.slice(1)}`, `${expiry}.`, ""];
  for (const other of forged) {
    const headers = { cookie: `${name}=${other}` };
    assert.equal((await ask({ path: "/metrics", headers })).status, 401, other);
  }
  const elsewhere = await serve(t);
  const stranger = await elsewhere.ask(form(token));
  const theirs = String(stranger.headers["set-cookie"]?.[0]).split(";")[0]?.split("=")[1];
  const headers = { cookie: `${name}=${theirs}` };
  assert.equal((await ask({ path: "/metrics", headers })).status, 401);
  // One of another path or domain of the same name comes beside ours, before or after it.
  for (const both of [`${name}=${theirs}; ${session}`, `${session}; ${name}=${theirs}`]) {
    assert.equal((await ask({ path: "/metrics", headers: { cookie: both } })).status, 200, both);
  }
});

test("a person is signed in at several runs, also where one proxy has them all", async (t) => {
  const headers = {
    host: "runs.example.org",
    "content-type": "application/x-www-form-urlencoded",
  };
  const options = { host: "0.0.0.0", insecure: true };
  const runs = [await serve(t, options), await serve(t, options)];
  // As a browser keeps them: of a name the one that came last.
  const kept = new Map<string, string>();
  for (const { ask } of runs) {
    const answer = await ask({ ...form(token), headers });
    const [name = "", value = ""] = String(answer.headers["set-cookie"]?.[0]).split(/[=;]/);
    kept.set(name, value);
  }
  const cookie = [...kept].map((pair) => pair.join("=")).join("; ");
  for (const { ask } of runs) {
    const { host } = headers;
    assert.equal((await ask({ path: "/metrics", headers: { host, cookie } })).status, 200);
  }
});

test("wrong tokens are answered ten times at once, then by time; sessions go on", async (t) => {
  const { ask } = await serve(t);
  const signedIn = await ask(form(token));
  const cookie = String(signedIn.headers["set-cookie"]?.[0]).split(";")[0] ?? "";
  const statuses: number[] = [];
  for (let tried = 0; tried < 40; tried++) {
    const asked =
      tried % 2 === 0
        ? form(`guess ${tried}`)
        : { path: "/metrics", headers: { authorization: `Bearer guess ${tried}` } };
    statuses.push((await ask(asked)).status);
  }
  assert.deepEqual(statuses.slice(0, 10), Array<number>(10).fill(401));
  // A slow machine is given more of them.
  assert.ok(statuses.filter((status) => status === 429).length >= 10, statuses.join(" "));
  const refused = await ask(form("one more")).then(async (first) =>
    first.status === 429 ? first : ask(form("and another")),
  );
  assert.equal(refused.status, 429);
  assert.ok(Number(refused.headers["retry-after"]) >= 1);
  // While that lasts the right token is not compared either, from there.
  assert.equal((await ask({ path: "/metrics", headers: { cookie } })).status, 200);
});

test("on loopback another site's name is no name of this server", async (t) => {
  const { ask, port } = await serve(t, { token: undefined });
  for (const host of [
    "rebound.example",
    `rebound.example:${port}`,
    "127.0.0.1.rebound.example",
    "localhost.rebound.example",
    "127.0.0.999",
    "169.254.169.254",
    "[fe80::1]:80",
    "localhost@rebound.example",
  ]) {
    for (const path of ["/", "/events", "/metrics", "/healthz"]) {
      const { status } = await ask({ path, headers: { host } });
      assert.ok(status === 421 || status === 400, `${host} ${path} ${status}`);
    }
  }
  for (const head of ["GET /metrics HTTP/1.0", "GET /metrics HTTP/1.1\r\nhost:"]) {
    assert.match(await answerTo(port, `${head}\r\n\r\n`), /^HTTP\/1\.1 4(00|21) /, head);
  }
  for (const host of ["localhost", `LOCALHOST:${port}`, "127.0.0.1:8080", "[::1]", "[::1]:9464"]) {
    assert.equal((await ask({ path: "/metrics", headers: { host } })).status, 200, host);
  }
});

test("beyond loopback a host of any name is answered, to those with the token", async (t) => {
  const { ask } = await serve(t, { host: "0.0.0.0", insecure: true });
  const headers = { host: "train.example", authorization: `Bearer ${token}` };
  assert.equal((await ask({ path: "/metrics", headers })).status, 200);
});

test("a page of another site cannot sign a browser in", async (t) => {
  const { ask, port } = await serve(t);
  const from = async (headers: Record<string, string>): Promise<number> => {
    const asked = form(token);
    return (await ask({ ...asked, headers: { ...asked.headers, ...headers } })).status;
  };
  for (const origin of ["https://other.example", "null", `http://127.0.0.1:${port + 1}`]) {
    assert.equal(await from({ origin }), 403, origin);
  }
  assert.equal(await from({ "sec-fetch-site": "cross-site" }), 403);
  assert.equal(await from({ "sec-fetch-site": "same-site" }), 403);
  assert.equal(await from({ origin: `http://127.0.0.1:${port}` }), 303);
  // A proxy with TLS in front, which names the server as it reaches it.
  assert.equal(
    await from({ "sec-fetch-site": "same-origin", origin: "https://train.example" }),
    303,
  );
});

test("a token beyond loopback needs TLS, by name, or a line that something else has it", async (t) => {
  await assert.rejects(serve(t, { host: "0.0.0.0" }), (error: Error & { code: string }) => {
    assert.equal(error.code, "E_INSECURE_HTTP");
    assert.match(error.message, /needs TLS \(http_tls_cert_file, http_tls_key_file\)\./);
    return true;
  });
  await assert.rejects(serve(t, { host: "::", token: undefined, withoutTls: true }), {
    code: "E_INSECURE_HTTP",
    message: /needs a token \(http_token_file\)/,
  });
  const { ask } = await serve(t, { host: "0.0.0.0", withoutTls: true });
  const right = await ask(form(token));
  assert.match(String(right.headers["set-cookie"]?.[0]), /; SameSite=Strict; Secure$/);
});
