import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { parseStoreUrl, splitStoreUrl, storeUrl } from "#lib/store/location";
import { MultipartUpload } from "#lib/store/multipart-upload";
import { ObjectStore } from "#lib/store/object-store";
import { bucket, credentials, type Fault, faultyWay, S3Server } from "#tests/support/s3-server";
import { needs } from "#tests/support/tools";

// Against a real S3 server, and one on a bad way to it.

const limit = { timeout: 120_000, ...needs("gofakes3") };
let server: S3Server;
const stores: ObjectStore[] = [];

before(async () => {
  if (limit.skip !== undefined && limit.skip !== false) return;
  Object.assign(process.env, credentials);
  server = await S3Server.start();
});

after(async () => {
  for (const store of stores) store.close();
  await server?.remove();
});

async function open(prefix: string, endpoint = server.endpoint): Promise<ObjectStore> {
  const store = await ObjectStore.open({ bucket, prefix, endpoint });
  stores.push(store);
  return store;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

test("locations are parsed, and what is none is not", () => {
  assert.deepEqual(parseStoreUrl("s3://my-bucket"), { bucket: "my-bucket", prefix: "" });
  const inner = parseStoreUrl("s3://my-bucket//a/b/");
  assert.deepEqual(inner, { bucket: "my-bucket", prefix: "a/b/" });
  assert.equal(storeUrl({ bucket: "my-bucket", prefix: "a/b/" }), "s3://my-bucket/a/b");
  for (const wrong of ["s3://", "s3://b", "http://b/c", "s3://my-bucket/../c", "my-bucket"]) {
    assert.equal(parseStoreUrl(wrong), undefined, wrong);
  }
  assert.deepEqual(splitStoreUrl("s3://b/p/checkpoint-4/"), {
    above: "s3://b/p",
    name: "checkpoint-4",
  });
});

test(
  "objects are stored, listed, read in ranges, copied and removed, below a prefix alone",
  limit,
  async () => {
    const store = await open("one/");
    const other = await open("two/");
    await other.put("a", text("other"));
    await store.put("a", text("0123456789"));
    await store.put("b/c", text("second"));
    await store.copy("b/c", "copied");
    const listed = await store.list("");
    assert.deepEqual(
      listed.map(({ key, sizeBytes }) => [key, sizeBytes]),
      [
        ["a", 10],
        ["b/c", 6],
        ["copied", 6],
      ],
    );
    const range = new Uint8Array(4);
    await store.readInto("a", range, 3);
    assert.deepEqual(range, text("3456"));
    assert.deepEqual(await store.get("copied", 100), text("second"));
    assert.equal(await store.get("nothing", 100), undefined);
    await assert.rejects(store.get("a", 9), { code: "E_FILE_TOO_LARGE" });
    await assert.rejects(store.readInto("a", new Uint8Array(20), 0), { code: "E_FILE_TRUNCATED" });
    await store.delete(["a", "copied", "never was"]);
    assert.deepEqual(
      (await store.list("")).map(({ key }) => key),
      ["b/c"],
    );
    assert.deepEqual(await other.get("a", 10), text("other"));
  },
);

test(
  "an object of many parts has its bytes; one that is given up leaves nothing",
  limit,
  async () => {
    const store = await open("parts/");
    const bytes = randomBytes(40 * 2 ** 20 + 7);
    const upload = new MultipartUpload(store, "large");
    for (let done = 0; done < bytes.length; done += 3_000_000) {
      await upload.write(bytes.subarray(done, done + 3_000_000));
    }
    assert.equal(await upload.close(), bytes.length);
    const back = new Uint8Array(bytes.length);
    await store.readInto("large", back, 0);
    assert.ok(bytes.equals(back));
    const given = new MultipartUpload(store, "given up");
    await given.write(bytes);
    await given.abandon();
    const killed = new MultipartUpload(store, "killed");
    await killed.write(bytes);
    await store.abortUploads("");
    await assert.rejects(killed.close(), { code: "E_CHECKPOINT_STORE" });
    assert.deepEqual(
      (await store.list("")).map(({ key }) => key),
      ["large"],
    );
  },
);

test(
  "what a store refuses for a while is asked again; what it goes on to refuse is told",
  limit,
  async (t) => {
    let faults: Fault[] = [500, 503, { cutAfterBytes: 100 }];
    const way = await faultyWay(server, (method) =>
      method === "GET" || method === "PUT" ? (faults.shift() ?? "none") : "none",
    );
    t.after(() => way.close());
    const bytes = randomBytes(200_000);
    const store = await open("faults/", way.endpoint);
    await store.put("a", bytes);
    faults = [{ cutAfterBytes: 100 }, 500];
    const back = new Uint8Array(bytes.length);
    await store.readInto("a", back, 0);
    assert.ok(bytes.equals(back));
    assert.deepEqual(faults, []);
    faults = Array.from({ length: 20 }, () => 500);
    await assert.rejects(store.put("b", bytes), (error: unknown) => {
      assert.ok(isLockstepError(error) && error.code === "E_CHECKPOINT_STORE");
      assert.match(error.message, /refused s3:\/\/checkpoints\/faults\/b: InternalError: a fault/);
      return error.retryable;
    });
    await way.close();
    await assert.rejects(store.put("b", bytes), /refused .*: ECONNREFUSED/);
  },
);

test("a whole object that comes in place of a range is not taken for it", limit, async (t) => {
  const way = await faultyWay(server, (method) => (method === "GET" ? "whole" : "none"));
  t.after(() => way.close());
  const store = await open("ranges/", way.endpoint);
  const bytes = randomBytes(2_000_000);
  await store.put("a", bytes);
  const back = new Uint8Array(65_536);
  await assert.rejects(store.readInto("a", back, 65_536), /others came/);
  assert.equal((await store.get("a", bytes.length))?.length, bytes.length);
});

test("a bucket that does not exist is named", limit, async () => {
  const store = await ObjectStore.open({ bucket: "absent", prefix: "", endpoint: server.endpoint });
  stores.push(store);
  await assert.rejects(store.list(""), /s3:\/\/absent: NoSuchBucket/);
});
