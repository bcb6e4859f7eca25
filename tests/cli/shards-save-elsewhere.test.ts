import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { ObjectStore } from "#lib/store/object-store";
import { createLargerJob, storedTensors } from "#tests/support/larger-job";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { apart } from "#tests/support/output-owner";
import { startOwnReducer } from "#tests/support/own-reducer";
import { bucket, credentials, S3Server } from "#tests/support/s3-server";
import { needs } from "#tests/support/tools";

// Reducers that do not see the output directory, beside one that does.

const limit = { timeout: 240_000 };
let job: Awaited<ReturnType<typeof createLargerJob>>;
let threads: CommandOutcome;

before(async () => {
  job = await createLargerJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ max_steps: 2, save_strategy: "steps", save_steps: 1 },
  });
  threads = await run("threads");
  assert.equal(threads.code, 0, threads.stderr);
});

after(() => job.remove());

const run = (output: string, ...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(job.args(output, ...args), join(job.directory, "cache"));

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

/** What starts a program that sees an empty directory in the place of another. */
function hiding(t: TestContext, output: string): readonly string[] | undefined {
  const prefix = apart(t, "mount");
  if (prefix === undefined) return undefined;
  const directory = join(job.directory, output);
  mkdirSync(directory, { recursive: true });
  return [...prefix, "sh", "-c", `mount -t tmpfs none '${directory}' && exec "$0" "$@"`];
}

const wrote = (lines: readonly string[]): readonly string[] =>
  lines.flatMap((line) => /wrote \S*\/([^/]+\.safetensors) /.exec(line)?.[1] ?? []).sort();

test(
  "what a reducer cannot write goes through the coordinator, and nothing else",
  limit,
  async (t) => {
    const prefix = hiding(t, "hidden");
    if (prefix === undefined) return;
    const seeing = await startOwnReducer(t);
    const blind = await startOwnReducer(t, { prefix });
    const reducers = JSON.stringify([seeing.address, blind.address]);
    const outcome = await run("hidden", "--reducers", reducers);
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(digestOf(outcome), digestOf(threads));
    const notes = outcome
      .of("note")
      .filter(({ text }) => text.includes("cannot write into output_dir"));
    assert.equal(notes.length, 1);
    assert.match(notes[0]?.text ?? "", /^shard 1 at /);
    assert.deepEqual([await seeing.exited, await blind.exited], [0, 0]);
    assert.deepEqual(wrote(blind.lines), []);
    const own = ["model-00001-of-00002.safetensors", "optimizer-00001-of-00002.safetensors"];
    assert.deepEqual(wrote(seeing.lines), [own[0], own[0], own[0], own[1], own[1]]);
    for (const place of ["checkpoint-1", "checkpoint-2", ""]) {
      const [ours, theirs] = ["hidden", "threads"].map((output) =>
        join(job.directory, output, place),
      );
      assert.deepEqual(await storedTensors(ours ?? ""), await storedTensors(theirs ?? ""), place);
    }
    // Of a checkpoint masters and moments of one shard and the weights that begin there, of the result these.
    const [first, , result] = outcome.of("checkpoint.saved");
    assert.ok((first?.relayedBytes ?? 0) > (result?.relayedBytes ?? 0));
    assert.ok((result?.relayedBytes ?? 0) > 0);
    assert.ok((first?.relayedBytes ?? 0) < (first?.bytes ?? 0));
  },
);

test("reducers upload their own files, with credentials of their own", {
  ...limit,
  ...needs("gofakes3"),
}, async (t) => {
  const server = await S3Server.start();
  t.after(() => server.remove());
  Object.assign(process.env, credentials);
  for (const has of [true, false]) {
    const name = has ? "stored" : "relayed";
    const prefix = hiding(t, name);
    if (prefix === undefined) return;
    const environment = { ...process.env };
    if (!has) {
      for (const key of Object.keys(credentials)) delete environment[key];
      environment["AWS_EC2_METADATA_DISABLED"] = "true";
    }
    const reducers = [
      await startOwnReducer(t, { prefix }),
      await startOwnReducer(t, { prefix, environment }),
    ];
    const store = await ObjectStore.open({
      ...{ bucket, prefix: `${name}/`, endpoint: server.endpoint },
    });
    // The first two of an earlier result: they would be read in the place of the new one's.
    const others = ["model.safetensors", "adapter_config.json", "mine/model.safetensors"];
    for (const key of others) await store.put(key, new Uint8Array(8));
    const outcome = await run(
      ...([name, "--reducers", JSON.stringify(reducers.map(({ address }) => address))] as const),
      ...["--checkpoint_store", `s3://${bucket}/${name}`, "--s3_endpoint", server.endpoint],
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(digestOf(outcome), digestOf(threads));
    const relayed = outcome.of("checkpoint.saved").map(({ relayedBytes = 0 }) => relayedBytes > 0);
    // The result is a directory that they do not see.
    assert.deepEqual(relayed, [!has, !has, true]);
    const notes = outcome
      .of("note")
      .filter(({ text }) => text.includes("cannot write into the store"));
    assert.deepEqual(
      notes.map(({ text }) => /^shard 1 .*credentials/i.test(text)),
      has ? [] : [true],
    );
    for (const [shard, { lines }] of reducers.entries()) {
      const file = `checkpoint-2/model-0000${shard + 1}-of-00002.safetensors`;
      const isOwn = has || shard === 0;
      assert.equal(
        lines.some((line) => line.includes(`s3://${bucket}/${name}/${file}`)),
        isOwn,
      );
    }
    const keys = (await store.list("")).map(({ key }) => key);
    store.close();
    assert.deepEqual(
      others.filter((key) => keys.includes(key)),
      others.slice(2),
    );
    for (const shard of [1, 2]) {
      assert.ok(keys.includes(`model-0000${shard}-of-00002.safetensors`));
      assert.ok(keys.includes(`checkpoint-2/model-0000${shard}-of-00002.safetensors`));
      assert.ok(keys.includes(`checkpoint-2/lockstep/optimizer-0000${shard}-of-00002.safetensors`));
    }
  }
  const again = await run(
    ...(["again", "--resume_from_checkpoint", `s3://${bucket}/stored/checkpoint-1`] as const),
    ...["--checkpoint_store", `s3://${bucket}/again`, "--s3_endpoint", server.endpoint],
  );
  assert.equal(again.code, 0, again.stderr);
  assert.equal(digestOf(again), digestOf(threads));
});
