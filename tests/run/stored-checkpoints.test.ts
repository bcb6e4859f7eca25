import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import type { CheckpointState } from "#coordinator/options";
import { writeCheckpointSums } from "#lib/checkpoint/checked-files";
import { guardWrites } from "#lib/checkpoint/write-guard";
import { LockstepError } from "#lib/core/errors/index";
import { MultipartUpload } from "#lib/store/multipart-upload";
import { ObjectStore } from "#lib/store/object-store";
import { bestCheckpoint } from "#run/results";
import { fetchModel } from "#run/store-files";
import { StoredCheckpoints } from "#run/stored-checkpoints";
import type { StartedRun } from "#run/start";
import { bucket, credentials, S3Server } from "#tests/support/s3-server";
import { needs } from "#tests/support/tools";

const limit = { timeout: 120_000, ...needs("gofakes3") };
const outputDir = await mkdtemp(join(tmpdir(), "lockstep-stored-"));
let server: S3Server;
let store: ObjectStore;

before(async () => {
  if (limit.skip !== undefined && limit.skip !== false) return;
  Object.assign(process.env, credentials);
  server = await S3Server.start();
  store = await ObjectStore.open({ bucket, prefix: "run/", endpoint: server.endpoint });
});

after(async () => {
  store?.close();
  await server?.remove();
  await rm(outputDir, { recursive: true, force: true });
});

/** A checkpoint of three files; the list of checksums is the last. */
const files = ["model.safetensors", "lockstep/state.json", "lockstep/checksums.json"];

const save = async (checkpoints: StoredCheckpoints, text: string, midway = () => {}) =>
  checkpoints.save(
    "checkpoint-4",
    async (temporary) => {
      for (const file of files) {
        await mkdir(dirname(join(temporary, file)), { recursive: true });
        await writeFile(join(temporary, file), file.endsWith("checksums.json") ? "{}" : text);
      }
      midway();
      return new Map();
    },
    undefined,
  );

const stored = async (): Promise<readonly string[]> => {
  const found = await store.list("checkpoint-4/");
  return Promise.all(
    found.map(
      async ({ key }) => `${key} ${Buffer.from((await store.get(key, 100)) ?? []).toString()}`,
    ),
  );
};

test("whoever lost the output directory changes nothing in the store either", limit, async (t) => {
  let isLost = false;
  const endGuard = guardWrites([outputDir], () => {
    if (isLost) throw new LockstepError("E_OUTPUT_DIR_LOST", { directory: outputDir, by: "other" });
  });
  t.after(endGuard);
  const refused = { code: "E_OUTPUT_DIR_LOST" };
  const elsewhere = await mkdtemp(join(tmpdir(), "lockstep-successor-"));
  t.after(() => rm(elsewhere, { recursive: true }));
  const old = new StoredCheckpoints(store, outputDir);
  const successor = new StoredCheckpoints(store, elsewhere);
  // Amid a save, which it has begun before.
  await assert.rejects(
    save(old, "old", () => {
      isLost = true;
    }),
    refused,
  );
  // By which whoever has the prefix knows it for a leftover.
  assert.deepEqual(await stored(), ["checkpoint-4/lockstep/unfinished "]);
  await successor.sweep();
  assert.deepEqual(await stored(), []);
  await save(successor, "new");
  const expected = await stored();
  assert.equal(expected.length, files.length);
  await assert.rejects(save(old, "old"), refused);
  await assert.rejects(old.remove(old.directoryOf("checkpoint-4")), refused);
  assert.deepEqual(await stored(), expected);
});

test("a best checkpoint that cannot be looked for is not taken for one that is gone", async () => {
  Object.assign(process.env, credentials);
  const config = {
    ...{ checkpoint_store: `s3://${bucket}/away`, output_dir: outputDir, s3_region: null },
    // Nobody listens there.
    s3_endpoint: "http://127.0.0.1:1",
  };
  const run = { config, record: { runId: "0123456789abcdef" } } as unknown as StartedRun;
  const state = { step: 4, best: { step: 2, metric: 1 } } as CheckpointState;
  await assert.rejects(bestCheckpoint(run, state), { code: "E_CHECKPOINT_STORE" });
});

test("a model whose bytes are not those that were saved is not taken", limit, async (t) => {
  const checkpoints = new StoredCheckpoints(store, outputDir);
  const name = "checkpoint-9";
  await checkpoints.save(
    name,
    async (temporary) => {
      await writeFile(join(temporary, "model.safetensors"), "weights");
      await mkdir(join(temporary, "lockstep"));
      await writeCheckpointSums(temporary);
      return new Map();
    },
    undefined,
  );
  t.after(() => checkpoints.remove(checkpoints.directoryOf(name)));
  const into = join(outputDir, "copied");
  const isWanted = (file: string): boolean => !file.startsWith("lockstep/");
  await fetchModel(store, name, isWanted, into);
  assert.equal(await readFile(join(into, "model.safetensors"), "utf8"), "weights");
  await store.put(`${name}/model.safetensors`, Buffer.from("Weights"));
  await assert.rejects(fetchModel(store, name, isWanted, into), {
    code: "E_CHECKPOINT_DAMAGED",
    message: /s3:.*checkpoint-9 is damaged: model.safetensors has a wrong checksum/,
  });
});

test(
  "uploads of a process that was killed go with what it had marked, and nothing else goes",
  limit,
  async () => {
    const checkpoints = new StoredCheckpoints(store, outputDir);
    const killed = new MultipartUpload(store, "checkpoint-3/model.safetensors");
    await killed.write(new Uint8Array(17 << 20));
    await store.put("checkpoint-3/lockstep/unfinished", new Uint8Array());
    await store.put("checkpoint-3/config.json", Buffer.from("{}"));
    for (const key of ["checkpoint-8/config.json", "checkpoint-x/lockstep/unfinished"]) {
      await store.put(key, Buffer.from("of somebody else"));
    }
    await checkpoints.sweep();
    await assert.rejects(killed.close(), { code: "E_CHECKPOINT_STORE", message: /NoSuchUpload/ });
    const left = (await store.list("checkpoint-")).map(({ key }) => key);
    assert.deepEqual(
      left.filter((key) => !key.startsWith("checkpoint-4/")),
      ["checkpoint-8/config.json", "checkpoint-x/lockstep/unfinished"],
    );
  },
);

test(
  "a checkpoint's record is asked for once, and again where another one has its place",
  limit,
  async () => {
    const asked: string[] = [];
    const counted = new Proxy(store, {
      get: (target, name) => {
        if (name === "get") {
          return async (key: string, limitBytes: number) => {
            asked.push(key);
            return target.get(key, limitBytes);
          };
        }
        const value = Reflect.get(target, name, target) as unknown;
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const checkpoints = new StoredCheckpoints(counted, outputDir);
    await store.put("checkpoint-12/lockstep/checksums.json", Buffer.from("{}"));
    await checkpoints.list();
    const first = asked.splice(0);
    assert.ok(first.includes("checkpoint-12/lockstep/run.json"), first.join());
    await checkpoints.list();
    assert.deepEqual(asked, []);
    await store.put("checkpoint-12/lockstep/checksums.json", Buffer.from('{"a": "b"}'));
    await checkpoints.list();
    assert.deepEqual(asked, ["checkpoint-12/lockstep/run.json"]);
  },
);

test("an object's name leads out of no directory", async (t) => {
  const names = [
    "model.safetensors",
    "../../outside",
    "ema/../../outside",
    "ema/model.safetensors",
  ];
  const zero = createHash("sha256").update(new Uint8Array(1)).digest("hex");
  const sums = Object.fromEntries(names.map((name) => [name, zero]));
  const fake = {
    list: async () => names.map((name) => ({ key: `checkpoint-4/${name}`, sizeBytes: 1 })),
    get: async () => Buffer.from(JSON.stringify(sums)),
    readInto: async () => {},
  } as unknown as ObjectStore;
  const outside = await mkdtemp(join(tmpdir(), "lockstep-outside-"));
  t.after(() => rm(outside, { recursive: true }));
  const directory = join(outside, "fetched", "model");
  await fetchModel(fake, "checkpoint-4", () => true, directory);
  assert.deepEqual(await readdir(outside), ["fetched"]);
  assert.deepEqual(await readdir(join(outside, "fetched")), ["model"]);
  assert.deepEqual((await readdir(directory)).sort(), ["ema", "model.safetensors"]);
});
