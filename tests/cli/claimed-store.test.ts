import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";
import { ObjectStore } from "#lib/store/object-store";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { bucket, credentials, S3Server } from "#tests/support/s3-server";
import { freePorts } from "#tests/support/ports";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { needs } from "#tests/support/tools";

// Runs of different output directories that name one prefix of a store; real processes with the fake engine.

const limit = { timeout: 240_000, ...needs("gofakes3") };
let job: TinyJob;
let server: S3Server;
let undisturbed: string | undefined;
const running = new Set<ChildProcess>();

before(async () => {
  if (limit.skip !== undefined && limit.skip !== false) return;
  Object.assign(process.env, credentials);
  server = await S3Server.start();
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/paced-engine.js"),
    ...{ eval_on_start: false, save_strategy: "steps", save_steps: 2 },
  });
  undisturbed = digestOf(await run("undisturbed", []));
});

after(async () => {
  for (const child of running) child.kill("SIGKILL");
  await job?.remove();
  await server?.remove();
});

const run = (
  output: string,
  args: readonly string[],
  onEvent: NonNullable<Parameters<typeof lockstepCommand>[2]> = () => {},
  environment?: Readonly<Record<string, string>>,
): Promise<CommandOutcome> =>
  lockstepCommand(
    ["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, output), ...args],
    join(job.directory, "cache"),
    (event, child) => {
      running.add(child);
      onEvent(event, child);
    },
    environment,
  );

const stored = (prefix: string): string[] => [
  ...["--checkpoint_store", `s3://${bucket}/${prefix}`, "--s3_endpoint", server.endpoint],
];

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

/** A run that is stopped by SIGSTOP when it has saved its first checkpoint. */
function stoppedRun(prefix: string, output: string) {
  let child: ChildProcess | undefined;
  let isStopped = (_child: ChildProcess): void => {};
  const stopped = new Promise<ChildProcess>((resolve) => {
    isStopped = resolve;
  });
  const stop = (event: LockstepEvent, process: ChildProcess): void => {
    if (event.type !== "checkpoint.saved" || child !== undefined) return;
    child = process;
    process.kill("SIGSTOP");
    isStopped(process);
  };
  // Before the next one is.
  const ended = run(output, stored(prefix), stop, { LOCKSTEP_TEST_BATCH_MS: "400" });
  return { stopped, ended };
}

const open = (prefix: string): Promise<ObjectStore> =>
  ObjectStore.open({ bucket, prefix: `${prefix}/`, endpoint: server.endpoint });

test(
  "a second run with the prefix of one that lives is refused, and changes nothing",
  limit,
  async () => {
    let waits = (_child: ChildProcess): void => {};
    const waiting = new Promise<ChildProcess>((resolve) => {
      waits = resolve;
    });
    const listen = `127.0.0.1:${await freePorts(3)}`;
    const first = lockstepCommand(
      [
        ...["coordinator", job.configFile, "--json-logs", "--listen", listen, ...stored("shared")],
        ...["--metrics_port", "null", "--output_dir", join(job.directory, "one")],
      ],
      join(job.directory, "cache"),
      (event, child) => {
        running.add(child);
        const isWaiting = event.type === "phase.changed" && event.phase === "waiting-for-workers";
        if (isWaiting) waits(child);
      },
    );
    const child = await waiting;
    const other = await run("two", stored("shared"));
    assert.equal(other.code, 1);
    assert.match(
      other.stderr,
      /E_CHECKPOINT_STORE_IN_USE.*shared is that of another run [0-9a-f]{16}, which lives: process/,
    );
    assert.deepEqual(other.of("step.completed"), []);
    const store = await open("shared");
    const keys = (await store.list("")).map(({ key }) => key);
    store.close();
    assert.deepEqual(keys, ["lockstep-claim.json"]);
    child.kill("SIGTERM");
    await first;
    const then = await run("two", stored("shared"));
    assert.equal(then.code, 0, then.stderr);
    assert.equal(digestOf(then), undisturbed);
  },
);

test(
  "a run that goes on elsewhere takes the prefix, removes what was left, and the one before publishes nothing",
  limit,
  async () => {
    const { stopped, ended } = stoppedRun("followed", "first");
    const child = await stopped;
    const store = await open("followed");
    // Of a save that died, and of somebody else.
    const foreign = "checkpoint-77/model.safetensors";
    for (const key of [
      "checkpoint-5/lockstep/unfinished",
      "checkpoint-5/model.safetensors",
      foreign,
    ]) {
      await store.put(key, Buffer.from("left"));
    }
    const took = await run("second", [...stored("followed"), "--resume_from_checkpoint", "true"]);
    assert.equal(took.code, 0, took.stderr);
    assert.equal(took.of("run.resumed")[0]?.step, 2);
    assert.equal(digestOf(took), undisturbed);
    const before = await store.list("");
    const names = new Set(before.map(({ key }) => key.split("/")[0]));
    assert.ok(!names.has("checkpoint-5"), [...names].join(" "));
    assert.ok(before.some(({ key }) => key === foreign));
    assert.ok(!before.some(({ key }) => key.endsWith("unfinished")));
    child.kill("SIGCONT");
    const first = await ended;
    assert.equal(first.code, 76, first.stderr);
    assert.match(first.stderr, /E_CHECKPOINT_STORE_LOST.*followed belongs to another process/);
    // What it had begun to store has the same bytes or is not visible.
    const manifests = (objects: typeof before) =>
      objects.filter(({ key }) => /^checkpoint-\d+.lockstep.checksums|^[^/]+$/.test(key));
    assert.deepEqual(manifests(await store.list("")), manifests(before));
    store.close();
    const again = await run("third", [
      ...[
        ...stored("followed"),
        "--resume_from_checkpoint",
        `s3://${bucket}/followed/checkpoint-4`,
      ],
    ]);
    assert.equal(again.code, 0, again.stderr);
    assert.equal(digestOf(again), undisturbed);
  },
);
