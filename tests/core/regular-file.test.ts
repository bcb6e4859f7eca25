import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFile, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { openRegularFile, readAll, readRegularFile } from "#lib/core/regular-file";

const limits = { what: "data file", limitBytes: 100 };

test("pipes, devices, sockets, directories and files that the system makes up are refused by name", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-regular-"));
  t.after(() => rm(directory, { recursive: true }));
  const path = (name: string): string => join(directory, name);
  execFileSync("mkfifo", [path("pipe.jsonl")]);
  await symlink("pipe.jsonl", path("link-to-pipe"));
  await symlink("circle", path("circle"));
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path("socket"), resolve));
  t.after(() => server.close());
  const cases: [string, RegExp][] = [
    [path("pipe.jsonl"), /it is a pipe/],
    [path("link-to-pipe"), /it is a pipe/],
    [path("socket"), /it is a socket/],
    ["/dev/zero", /it is a device/],
    ["/dev/null", /it is a device/],
    [directory, /it is a directory/],
    [path("circle"), /in a circle/],
    ["/proc/self/status", /has no size/],
  ];
  for (const [file, words] of cases) {
    await assert.rejects(readRegularFile(file, limits), (error) => {
      assert.ok(isLockstepError(error), `${file}: ${String(error)}`);
      assert.equal(error.code, "E_FILE_UNREADABLE");
      assert.match(error.message, words);
      assert.ok(error.message.includes(`data file ${file} `));
      return true;
    });
  }
  await assert.rejects(readRegularFile(path("none"), limits), { code: "E_FILE_NOT_FOUND" });
  await writeFile(path("large"), "x".repeat(101));
  await assert.rejects(readRegularFile(path("large"), limits), { code: "E_FILE_TOO_LARGE" });
  await writeFile(path("empty"), "");
  assert.equal((await readRegularFile(path("empty"), limits)).length, 0);
});

test("a file that grows is read to where it ended when it was opened", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-growing-"));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, "log");
  await writeFile(file, "first\n");
  const opened = await openRegularFile(file, "log");
  await appendFile(file, "second\n");
  assert.equal((await readAll(opened)).toString(), "first\n");
  await opened.handle.close();
});
