import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { ObjectStore } from "#lib/store/object-store";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { bucket, credentials, type Fault, faultyWay, S3Server } from "#tests/support/s3-server";
import { coordinatorOf } from "#tests/support/processes";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// Checkpoints in a store, of real processes with the fake engine.

const limit = { timeout: 120_000, ...needs("gofakes3") };
let job: TinyJob;
let server: S3Server;
let undisturbed: string | undefined;

before(async () => {
  if (limit.skip !== undefined && limit.skip !== false) return;
  Object.assign(process.env, credentials);
  server = await S3Server.start();
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    eval_on_start: false,
  });
  undisturbed = digestOf(await run("undisturbed", []));
});

after(async () => {
  await job?.remove();
  await server?.remove();
});

const run = (
  output: string,
  args: readonly string[],
  onEvent?: Parameters<typeof lockstepCommand>[2],
): Promise<CommandOutcome> =>
  lockstepCommand(
    ["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, output), ...args],
    join(job.directory, "cache"),
    onEvent,
  );

const stored = (prefix: string, endpoint = server.endpoint): string[] => [
  ...["--checkpoint_store", `s3://${bucket}/${prefix}`, "--s3_endpoint", endpoint],
  ...["--save_strategy", "steps", "--save_steps", "2"],
  ...["--save_retry_ms", "30000"],
];

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

async function keysOf(prefix: string): Promise<string[]> {
  const store = await ObjectStore.open({ bucket, prefix: `${prefix}/`, endpoint: server.endpoint });
  const keys = (await store.list("")).map(({ key }) => key);
  store.close();
  return keys;
}

const checkpointsOf = async (prefix: string): Promise<string[]> => [
  ...new Set((await keysOf(prefix)).flatMap((key) => /^checkpoint-\d+/.exec(key)?.[0] ?? [])),
];

test(
  "checkpoints and the result are in the store; rotation and the next start find them there",
  limit,
  async () => {
    const args = [...stored("whole"), "--save_total_limit", "2"];
    const outcome = await run("first", args);
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(digestOf(outcome), undisturbed);
    assert.deepEqual(await checkpointsOf("whole"), ["checkpoint-4", "checkpoint-6"]);
    const keys = await keysOf("whole");
    for (const file of [
      "model.safetensors",
      "config.json",
      "lockstep/optimizer-00001-of-00002.safetensors",
    ]) {
      assert.ok(keys.includes(`checkpoint-6/${file}`), file);
    }
    assert.ok(keys.includes("model.safetensors") && keys.includes("lockstep-run.json"));
    const here = readdirSync(join(job.directory, "first"));
    assert.deepEqual(
      here.filter((name) => name.includes("checkpoint")),
      [],
    );
    const saved = outcome.of("checkpoint.saved");
    assert.equal(saved[1]?.directory, `s3://${bucket}/whole/checkpoint-4`);
    // The tokenizer is that of the checkpoint before.
    assert.deepEqual(
      saved.slice(0, 3).map(({ sharedBytes = 0 }) => sharedBytes > 1000),
      [false, true, true],
    );
    // Another machine, which has nothing of the run, with another number of shards.
    const again = await run("second", [
      ...[...stored("whole"), "--resume_from_checkpoint", `s3://${bucket}/whole/checkpoint-4`],
      ...["--reducer_shards", "1"],
    ]);
    assert.equal(again.code, 0, again.stderr);
    assert.equal(again.of("run.resumed")[0]?.step, 4);
    assert.equal(digestOf(again), undisturbed);
    const local = await openSafetensors(join(job.directory, "second", "model.safetensors"));
    const result = await openSafetensors(join(job.directory, "undisturbed", "model.safetensors"));
    for (const name of result.tensors.keys()) {
      assert.deepEqual(await local.readBytes(name), await result.readBytes(name), name);
    }
    await local.close();
    await result.close();
  },
);

test(
  "a coordinator that is killed amid a save leaves the checkpoint before it, and its run goes on from there",
  limit,
  async () => {
    let child: { kill: (signal: "SIGKILL") => boolean } | undefined;
    // The last thing of the second checkpoint never comes.
    const way = await faultyWay(server, (method, path) => {
      if (method !== "PUT" || !path.includes("/checkpoint-4/lockstep/checksums.json"))
        return "none";
      child?.kill("SIGKILL");
      return 500;
    });
    const killed = await run("killed", stored("killed", way.endpoint), (_event, process) => {
      child = process;
    });
    await way.close();
    assert.equal(killed.code, null);
    assert.ok((await keysOf("killed")).includes("checkpoint-4/model.safetensors"));
    const outcome = await run("elsewhere", [
      ...stored("killed"),
      ...["--resume_from_checkpoint", "true"],
    ]);
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(outcome.of("run.resumed")[0]?.step, 2);
    assert.equal(digestOf(outcome), undisturbed);
  },
);

test(
  "a store that is gone amid a save ends no run; the save is repeated when it is back",
  limit,
  async () => {
    let goes = (): void => {};
    const gone = new Promise<void>((resolve) => {
      goes = resolve;
    }).then(() => server.kill());
    let back: Promise<void> | undefined;
    // The second checkpoint comes to a store that is gone.
    const way = await faultyWay(server, async (method, path): Promise<Fault> => {
      if (method === "PUT" && path.includes("/checkpoint-4/")) await gone;
      return "none";
    });
    const outcome = await run("gone", stored("gone", way.endpoint), (event) => {
      if (event.type === "checkpoint.saved" && event.step === 2) goes();
      if (event.type === "checkpoint.failed") back ??= gone.then(() => server.restart());
    });
    await back;
    await way.close();
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(digestOf(outcome), undisturbed);
    const failed = outcome.of("checkpoint.failed");
    assert.ok(failed.length > 0 && failed.every(({ code }) => code === "E_CHECKPOINT_STORE"));
    const checkpoints = await checkpointsOf("gone");
    assert.ok(checkpoints.includes("checkpoint-2") && checkpoints.includes("checkpoint-6"));
  },
);

test(
  "an old checkpoint that cannot be removed for a while fails no save; a later one removes it",
  limit,
  async () => {
    // All attempts of the first removals once a second one is saved.
    let [isSaved, numRefused] = [false, 0];
    const way = await faultyWay(server, (method, path) => {
      isSaved ||= method === "PUT" && path.includes("/checkpoint-4/lockstep/checksums.json");
      const isRemoval = isSaved && method === "POST" && path.includes("delete");
      return isRemoval && numRefused++ < 15 ? 500 : "none";
    });
    const outcome = await run("rotated", [
      ...stored("rotated", way.endpoint),
      ...["--save_total_limit", "1"],
    ]);
    await way.close();
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.ok(numRefused > 15, `${numRefused}`);
    assert.deepEqual(outcome.of("checkpoint.failed"), []);
    assert.deepEqual(await checkpointsOf("rotated"), ["checkpoint-6"]);
  },
);

test(
  "a run whose shard is lost while the store is away waits for its last checkpoint",
  limit,
  async () => {
    let isAway = false;
    const way = await faultyWay(server, (method, path) => {
      if (method === "PUT" && path.includes("/checkpoint-4/lockstep/checksums.json")) isAway = true;
      return isAway && method !== "PUT" ? 500 : "none";
    });
    const outcome = await lockstepCommand(
      [
        ...["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, "lost")],
        ...stored("lost", way.endpoint),
      ],
      join(job.directory, "cache"),
      (event) => {
        if (event.type === "note" && /checkpoint is waited for/.test(event.text)) isAway = false;
      },
      {
        NODE_OPTIONS: `--import ${new URL("../support/shard-crash.js", import.meta.url).href}`,
        LOCKSTEP_TEST_SHARD_CRASH: "1:apply:5",
      },
    );
    await way.close();
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(digestOf(outcome), undisturbed);
    assert.deepEqual(
      outcome.of("shards.rolledBack").map(({ step }) => step),
      [4],
    );
  },
);

test(
  "a coordinator that is started again while the store is away waits for it",
  limit,
  async () => {
    let isAway = false;
    let numKilled = 0;
    const way = await faultyWay(server, () => (isAway ? 500 : "none"));
    const args = [...stored("restarted", way.endpoint), "--reducer_processes", "2"];
    const outcome = await run("restarted", args, (event, child) => {
      if (event.type === "note" && /checkpoint is waited for/.test(event.text)) isAway = false;
      if (event.type !== "step.completed" || numKilled > 0) return;
      numKilled += 1;
      isAway = true;
      process.kill(coordinatorOf(child.pid ?? 0), "SIGKILL");
    });
    await way.close();
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.equal(digestOf(outcome), undisturbed);
    const lines = outcome.of("note").map(({ text }) => text);
    assert.ok(
      lines.some((line) => /checkpoint is waited for/.test(line)),
      lines.join("\n"),
    );
  },
);

test(
  "a stored checkpoint with a flipped bit is passed over, or refused where it is asked for",
  limit,
  async () => {
    const first = await run("damaged", stored("damaged"));
    assert.equal(first.code, 0, first.stderr);
    await rm(join(job.directory, "damaged", "lockstep-run.json"));
    await rm(join(job.directory, "damaged", "model.safetensors"));
    const store = await ObjectStore.open({ bucket, prefix: "damaged/", endpoint: server.endpoint });
    const key = "checkpoint-6/lockstep/optimizer-00001-of-00002.safetensors";
    const bytes = (await store.get(key, 1e9)) ?? new Uint8Array();
    bytes[bytes.length - 5] = (bytes.at(-5) ?? 0) ^ 1;
    await store.put(key, bytes);
    store.close();
    const named = `s3://${bucket}/damaged/checkpoint-6`;
    const refused = await run("damaged", [...stored("damaged"), "--resume_from_checkpoint", named]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /E_CHECKPOINT_DAMAGED.*s3:.*checkpoint-6 is damaged: lockstep.optimizer-00001-of-00002.safetensors has a wrong checksum of its bytes/,
    );
    const resumed = await run("damaged", [
      ...stored("damaged"),
      "--resume_from_checkpoint",
      "true",
    ]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(resumed.of("run.resumed").at(-1)?.step, 4);
    assert.equal(digestOf(resumed), undisturbed);
  },
);

test("a store that cannot be reached is refused before anything is trained", limit, async () => {
  const outcome = await run("absent", [
    ...["--checkpoint_store", "s3://absent-bucket/a", "--s3_endpoint", server.endpoint],
  ]);
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /E_CHECKPOINT_STORE.*s3:\/\/absent-bucket\/a.*NoSuchBucket/s);
  assert.deepEqual(outcome.of("step.completed"), []);
});
