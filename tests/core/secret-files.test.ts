import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readToken } from "#lib/core/secret-files";
import { httpSecurity } from "#run/http-security";
import { loadWireSecurity } from "#lib/wire/security";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-secrets-"));
});
after(() => rm(directory, { recursive: true, force: true }));

const good = "0123456789abcdef0123456789abcdef";

async function fileOf(content: string | Buffer, mode = 0o600): Promise<string> {
  const file = join(directory, `token-${Math.random()}`);
  await writeFile(file, content);
  await chmod(file, mode);
  return file;
}

test("a token file without a token is refused by name, as join token and as HTTP token", async () => {
  const cases: readonly (readonly [content: string | Buffer, problem: RegExp])[] = [
    ["", /the file is empty/],
    ["  \n\t\r\n ", /the file is empty/],
    ["\u00a0\u2003", /the file is empty/],
    [`${good}\n${good}`, /several lines/],
    [`${good}\r${good}`, /several lines/],
    [`${good}\0`, /not printable ASCII/],
    [`\u001b[1m${good}`, /not printable ASCII/],
    [`pässword-${good}`, /not printable ASCII/],
    [Buffer.from([...Buffer.from(good), 0xff]), /not printable ASCII/],
    [`a\tb${good}`, /not printable ASCII/],
    ["x".repeat(4097), /4097 characters, of at most 4096/],
  ];
  for (const [content, problem] of cases) {
    const file = await fileOf(content);
    const expected = { code: "E_TOKEN_INVALID", message: problem };
    await assert.rejects(loadWireSecurity({ joinTokenFile: file }, assert.fail), expected);
    const files = { tokenFile: file, tlsCertFile: null, tlsKeyFile: null };
    await assert.rejects(httpSecurity(files, assert.fail), expected);
  }
});

test("ends of lines around a token are not part of it", async () => {
  for (const content of [good, `${good}\n`, `${good}\r\n`, `  ${good}  \n\n`, `\ufeff${good}\n`]) {
    assert.equal(await readToken(await fileOf(content), "join token", assert.fail), good);
  }
});

test("a short token, and secrets that every user can read, are told of", async () => {
  const told: string[] = [];
  const tell = (line: string): number => told.push(line);
  await readToken(await fileOf("hunter2"), "join token", tell);
  assert.match(told.splice(0).join("|"), /^the join token in \S+ has 7 characters and can be/);
  for (const mode of [0o604, 0o644, 0o602]) {
    const open = await fileOf(good, mode);
    await readToken(open, "HTTP token", tell);
    const [line = ""] = told.splice(0);
    assert.match(line, /^every user of this machine has access to the HTTP token in /);
    assert.ok(line.includes(`(mode 0${mode.toString(8)})`), line);
  }
  // As a mounted secret of a group has it.
  for (const mode of [0o440, 0o640, 0o600, 0o400]) {
    await readToken(await fileOf(good, mode), "HTTP token", assert.fail);
  }
});
