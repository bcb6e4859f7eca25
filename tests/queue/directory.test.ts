import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { DirectoryStore } from "#lib/queue/directory-store";
import { withCode } from "#tests/support/failure";
import { queueSuite } from "./suite.js";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lockstep-queue-"));
});
after(() => rm(root, { recursive: true, force: true }));

queueSuite("directory", {
  fresh: async () => {
    const directory = await mkdtemp(join(root, "q-"));
    return () => DirectoryStore.open(directory);
  },
});

test("a writer who is far behind replaces nothing, and old revisions go", async () => {
  const directory = await mkdtemp(join(root, "q-"));
  const store = await DirectoryStore.open(directory);
  for (let revision = 0; revision < 6; revision++) {
    assert.ok(await store.write("jobs", "k", `value ${revision}`, revision));
  }
  for (const behind of [0, 1, 2, 3, 4, 5]) {
    assert.equal(await store.write("jobs", "k", "late", behind), false);
  }
  assert.deepEqual(await store.get("jobs", "k"), { key: "k", value: "value 5", revision: 6 });
  assert.deepEqual((await readdir(join(directory, "jobs"))).sort(), ["k.5.json", "k.6.json"]);
});

test("a directory that cannot be used is told by name", async () => {
  const file = join(root, "file");
  await writeFile(file, "");
  await assert.rejects(DirectoryStore.open(join(file, "queue")), withCode("E_QUEUE_AWAY"));
});
