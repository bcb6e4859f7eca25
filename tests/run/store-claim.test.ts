import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import type { ResolvedConfig } from "#lib/config/index";
import { ObjectStore } from "#lib/store/object-store";
import { fenceEnvironment } from "#run/job-fence";
import { storeOf } from "#run/open-store";
import { assertStoreHeld, RunStore } from "#run/store-claim";
import { bucket, credentials, faultyWay, S3Server } from "#tests/support/s3-server";
import { needs } from "#tests/support/tools";

// Two runs that ask for one prefix of a real S3 server. Both are of this process: what the second one takes it has.

const limit = { timeout: 120_000, ...needs("gofakes3") };
const directories: string[] = [];
let server: S3Server;

before(async () => {
  if (limit.skip !== undefined && limit.skip !== false) return;
  Object.assign(process.env, credentials);
  server = await S3Server.start();
});

after(async () => {
  await server?.remove();
  for (const directory of directories) await rm(directory, { recursive: true });
});

const runOne = "1111111111111111";
const runTwo = "2222222222222222";

interface Asked {
  readonly prefix: string;
  readonly output: string;
  readonly outputEpoch?: number;
  readonly overwrite?: boolean;
  readonly endpoint?: string;
}

async function newOutput(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-claimed-"));
  directories.push(directory);
  return directory;
}

const configOf = ({ prefix, output, overwrite = false, endpoint }: Asked): ResolvedConfig =>
  ({
    ...{ output_dir: output, overwrite_output_dir: overwrite, s3_region: null, nats_lease: null },
    ...{ checkpoint_store: `s3://${bucket}/${prefix}`, s3_endpoint: endpoint ?? server.endpoint },
  }) as unknown as ResolvedConfig;

/** Far shorter than in a run. */
const pace = { beatMs: 100, silentMs: 5_000 };
const opened: RunStore[] = [];

afterEach(async () => {
  for (const store of opened.splice(0)) await store.release();
});

function newStore(...[config, epoch, waiting]: ConstructorParameters<typeof RunStore>): RunStore {
  const store = new RunStore(config, epoch, { ...waiting, ...pace });
  opened.push(store);
  return store;
}

const runStore = (
  asked: Asked,
  note: (line: string) => void = isTold,
  signal = new AbortController().signal,
  onLost: (error: Error) => void = () => {},
): RunStore => newStore(configOf(asked), asked.outputEpoch ?? 1, { note, signal, onLost });

/** Nothing else is said where conditions are kept to. */
const isTold = (line: string): void => assert.match(line, /was claimed by.*no sign of life/);
const inUse = { code: "E_CHECKPOINT_STORE_IN_USE" };

async function isHeldBy(prefix: string, runId: string): Promise<void> {
  const store = await ObjectStore.open({
    ...{ bucket, prefix: `${prefix}/`, endpoint: server.endpoint },
  });
  const claim = await store.get("lockstep-claim.json", 10_000);
  assert.equal(JSON.parse(Buffer.from(claim ?? []).toString()).runId, runId);
  assert.deepEqual(
    (await store.list("")).map(({ key }) => key),
    ["lockstep-claim.json"],
  );
  store.close();
}

test("another run is refused by name until the first one has ended", limit, async () => {
  const first = runStore({ prefix: "others", output: await newOutput() });
  await first.claim("");
  await first.claim(runOne);
  await isHeldBy("others", runOne);
  const other = runStore({ prefix: "others", output: await newOutput() });
  await assert.rejects(other.claim(runTwo), {
    ...inUse,
    message: new RegExp(
      `s3://${bucket}/others is that of another run ${runOne}, which lives: process`,
    ),
  });
  await assert.rejects(other.claim(""), inUse);
  await first.release();
  await other.claim(runTwo);
  await isHeldBy("others", runTwo);
});

test(
  "a run that goes on elsewhere, in its directory or by overwriting takes the prefix",
  limit,
  async () => {
    for (const [prefix, again] of [
      ["same-run", async () => ({ output: await newOutput(), runId: runOne })],
      ["same-directory", async (output: string) => ({ output, runId: "", outputEpoch: 2 })],
      ["overwritten", async () => ({ output: await newOutput(), runId: runTwo, overwrite: true })],
    ] as const) {
      const output = await newOutput();
      await runStore({ prefix, output }).claim(runOne);
      const { runId, ...how } = await again(output);
      const taker = runStore({ prefix, ...how });
      await taker.claim(runId);
      await isHeldBy(prefix, runId);
    }
  },
);

test(
  "an earlier claim of a directory, or giving of a job, takes nothing from a later one",
  limit,
  async (t) => {
    const output = await newOutput();
    await runStore({ prefix: "directory", output, outputEpoch: 3 }).claim(runOne);
    const earlier = runStore({ prefix: "directory", output, outputEpoch: 2 });
    await assert.rejects(earlier.claim(runOne), { code: "E_OUTPUT_DIR_LOST" });
    const give = (epoch: number): void => {
      Object.assign(process.env, fenceEnvironment({ job: "abcdefgh", epoch }));
    };
    t.after(() => delete process.env["LOCKSTEP_JOB"]);
    give(2);
    await runStore({ prefix: "job", output: await newOutput() }).claim(runOne);
    give(1);
    const late = runStore({ prefix: "job", output: await newOutput() });
    await assert.rejects(late.claim(""), { code: "E_JOB_TAKEN" });
    give(3);
    // It has saved nothing that the later one could go on from.
    await runStore({ prefix: "job", output: await newOutput() }).claim(runTwo);
    await isHeldBy("job", runTwo);
  },
);

test(
  "whoever leads by a lease takes the prefix from who led before, whatever their directories",
  limit,
  async () => {
    const led = async (epoch: number): Promise<RunStore> => {
      const config = configOf({ prefix: "led", output: await newOutput() });
      const { signal } = new AbortController();
      const waiting = { note: isTold, signal, onLost: () => {} };
      return newStore({ ...config, nats_lease: "mine" }, epoch, waiting);
    };
    await (await led(4)).claim(runOne);
    await (await led(5)).claim("");
    await assert.rejects((await led(4)).claim(runOne), { code: "E_OUTPUT_DIR_LOST" });
    await isHeldBy("led", "");
  },
);

test("whoever was followed is told, by itself and whenever it asks", limit, async () => {
  const prefix = "followed";
  const first = { prefix, output: await newOutput() };
  let told = (_error: Error): void => {};
  const unasked = new Promise<Error>((resolve) => {
    told = resolve;
  });
  const { signal } = new AbortController();
  await runStore(first, isTold, signal, told).claim(runOne);
  const store = await storeOf(configOf(first));
  assert.ok(store !== undefined);
  await assertStoreHeld(store);
  // Another process.
  const claim = JSON.parse(
    Buffer.from((await store.get("lockstep-claim.json", 1e4)) ?? []).toString(),
  );
  await store.put(
    "lockstep-claim.json",
    Buffer.from(JSON.stringify({ ...claim, owner: "other", epoch: claim.epoch + 1, pid: 77 })),
  );
  const lost = { code: "E_CHECKPOINT_STORE_LOST", message: /belongs to another.*process 77 on/ };
  // Without being asked, by its next sign of life.
  assert.match((await unasked).message, lost.message);
  await assert.rejects(assertStoreHeld(store), lost);
  await store.delete(["lockstep-claim.json"]);
  await assert.rejects(assertStoreHeld(store), lost);
});

test(
  "a claim that somebody removed is made again; of many at the same time one is made",
  limit,
  async () => {
    const prefix = "removed";
    const asked = { prefix, output: await newOutput() };
    await runStore(asked).claim(runOne);
    const store = await storeOf(configOf(asked));
    assert.ok(store !== undefined);
    await store.delete(["lockstep-claim.json"]);
    await assertStoreHeld(store);
    await isHeldBy(prefix, runOne);
    const outputs = await Promise.all(Array.from({ length: 6 }, newOutput));
    const claims = outputs.map((output, i) =>
      runStore({ prefix: "many", output }).claim(String(i).repeat(16)),
    );
    const ended = await Promise.allSettled(claims);
    assert.equal(ended.filter(({ status }) => status === "fulfilled").length, 1);
    for (const each of ended) {
      if (each.status === "rejected") assert.equal(each.reason.code, inUse.code, each.reason.stack);
    }
  },
);

for (const fault of ["unconditional", 501] as const) {
  test(
    `a server that knows no conditions is told of (${fault}), and an ended run is followed`,
    limit,
    async (t) => {
      const way = await faultyWay(server, (_method, _path, headers) =>
        headers["if-none-match"] === undefined && headers["if-match"] === undefined
          ? "none"
          : fault,
      );
      t.after(() => way.close());
      const lines: string[] = [];
      const prefix = `plain-${fault}`;
      const at = { prefix, endpoint: way.endpoint };
      const note = (line: string): void => void lines.push(line);
      const first = runStore({ ...at, output: await newOutput() }, note);
      await first.claim(runOne);
      assert.match(
        lines[0] ?? "",
        /^warning: s3:.*does not support conditional writes.*of its own$/,
      );
      const other = runStore({ ...at, output: await newOutput() }, () => {});
      await assert.rejects(other.claim(runTwo), inUse);
      await first.release();
      await other.claim(runTwo);
      await isHeldBy(prefix, runTwo);
    },
  );
}

test(
  "a claim without a sign of life is followed; who is stopped meanwhile claims nothing",
  limit,
  async () => {
    const prefix = "silent";
    const first = { prefix, output: await newOutput() };
    await runStore(first).claim(runOne);
    const store = await storeOf(configOf(first));
    assert.ok(store !== undefined);
    // Of a process that was killed: this one says nothing for it.
    const claim = JSON.parse(
      Buffer.from((await store.get("lockstep-claim.json", 1e4)) ?? []).toString(),
    );
    await store.put(
      "lockstep-claim.json",
      Buffer.from(JSON.stringify({ ...claim, owner: "killed" })),
    );
    const stop = new AbortController();
    const stopped = runStore(
      { prefix, output: await newOutput() },
      () => stop.abort(),
      stop.signal,
    );
    await stopped.claim(runTwo);
    await isHeldBy(prefix, runOne);
    await runStore({ prefix, output: await newOutput() }).claim(runTwo);
    await isHeldBy(prefix, runTwo);
  },
);

test("a store that refuses to be written is named at once", limit, async (t) => {
  const way = await faultyWay(server, (method) => (method === "PUT" ? 403 : "none"));
  t.after(() => way.close());
  const asked = { prefix: "refused", endpoint: way.endpoint, output: await newOutput() };
  await assert.rejects(runStore(asked).claim(runOne), {
    code: "E_CHECKPOINT_STORE",
    message: /refused s3:.*refused.lockstep-probe-/,
  });
});
