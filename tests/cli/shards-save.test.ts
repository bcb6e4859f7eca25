import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { verifyChecksums } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Shards of other processes write their part of a checkpoint themselves.

let job: TinyJob;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ eval_on_start: false, save_strategy: "steps", save_steps: 3 },
  });
});

after(() => job.remove());

const run = (output: string, ...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(
    ["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, output), ...args],
    join(job.directory, "cache"),
  );

test("their files are those of one process, and a run goes on from them", {
  timeout: 240_000,
}, async () => {
  const threads = await run("threads", "--reducer_shards", "2");
  assert.equal(threads.code, 0, threads.stderr);
  const processes = await run("processes", "--reducer_processes", "2");
  assert.equal(processes.code, 0, processes.stderr);
  const digest = threads.of("run.completed")[0]?.mastersSha256;
  assert.equal(processes.of("run.completed")[0]?.mastersSha256, digest);
  // Where one had not seen the directory it would have been told.
  assert.ok(!processes.of("note").some(({ text }) => text.includes("cannot write")));
  for (const shard of [1, 2]) {
    const log = readFileSync(
      join(job.directory, "processes", "logs", `reducer-${shard}.log`),
      "utf8",
    );
    assert.match(log, new RegExp(`wrote \\S+checkpoint-3\\S+optimizer-0000${shard}-of-00002`));
  }
  const file = (output: string, name: string): Buffer =>
    readFileSync(join(job.directory, output, "checkpoint-3", name));
  const written = [1, 2].map((shard) => `lockstep/optimizer-0000${shard}-of-00002.safetensors`);
  for (const name of [...written, "model.safetensors"]) {
    assert.deepEqual(file("processes", name), file("threads", name), name);
  }
  const checkpoint = join(job.directory, "processes", "checkpoint-3");
  await verifyChecksums(checkpoint, "lockstep/checksums.json", written);
  const again = await run("again", "--resume_from_checkpoint", checkpoint, "--reducer_shards", "1");
  assert.equal(again.code, 0, again.stderr);
  assert.equal(again.of("run.completed")[0]?.mastersSha256, digest);
});

test("a shard with a mirror writes its part itself, too", { timeout: 240_000 }, async () => {
  const mirrored = ["--reducer_processes", "2", "--reducer_replicas", "2"];
  const { code, stderr } = await run("mirrored", ...mirrored);
  assert.equal(code, 0, stderr);
  const log = readFileSync(join(job.directory, "mirrored", "logs", "reducer-1.log"), "utf8");
  assert.match(log, /wrote \S+checkpoint-3\S+optimizer-00001-of-00001/);
});
