import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { verifyChecksums } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createLargerJob, storedTensors } from "#tests/support/larger-job";

// Shards of other processes write their part of a checkpoint and of the result themselves.

let job: Awaited<ReturnType<typeof createLargerJob>>;
let threads: CommandOutcome;

before(async () => {
  job = await createLargerJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ save_strategy: "steps", save_steps: 3, max_steps: 4, ema_decay: 0.5 },
  });
  threads = await run("threads", "--reducer_shards", "2");
  assert.equal(threads.code, 0, threads.stderr);
});

after(() => job.remove());

const run = (output: string, ...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(job.args(output, ...args), join(job.directory, "cache"));

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

const filesIn = (...path: string[]): readonly string[] =>
  readdirSync(join(job.directory, ...path)).filter((name) => name.endsWith(".safetensors"));

const logOf = (output: string, reducer: number): string =>
  readFileSync(join(job.directory, output, "logs", `reducer-${reducer}.log`), "utf8");

const tensorsOf = (...path: string[]): ReturnType<typeof storedTensors> =>
  storedTensors(join(job.directory, ...path));

for (const numShards of [1, 4]) {
  test(`files of ${numShards} processes are those of one, and a run goes on from them`, {
    timeout: 240_000,
  }, async () => {
    const output = `of-${numShards}`;
    const processes = await run(output, "--reducer_processes", String(numShards));
    assert.equal(processes.code, 0, processes.stderr);
    assert.equal(digestOf(processes), digestOf(threads));
    // Where one had not seen the directory it would have been told.
    assert.ok(!processes.of("note").some(({ text }) => text.includes("cannot")));
    for (const { relayedBytes } of processes.of("checkpoint.saved")) {
      assert.equal(relayedBytes, undefined);
    }
    for (const place of [[], ["ema"], ["checkpoint-3"], ["checkpoint-3", "ema"]]) {
      const expected = await tensorsOf("threads", ...place);
      assert.deepEqual(await tensorsOf(output, ...place), expected, place.join("/"));
    }
    const models = filesIn(output, "checkpoint-3");
    // One shard divides the model as a thread does; of several each has what begins there.
    if (numShards === 1) assert.deepEqual(models, filesIn("threads", "checkpoint-3"));
    assert.deepEqual(filesIn(output), models);
    const checkpoint = join(job.directory, output, "checkpoint-3");
    const written = Array.from(
      { length: numShards },
      (_, shard) => `lockstep/optimizer-0000${shard + 1}-of-0000${numShards}.safetensors`,
    );
    const logs = Array.from({ length: numShards }, (_, shard) => logOf(output, shard + 1)).join("");
    for (const name of [...written, ...models, ...models.map((model) => `ema/${model}`)]) {
      assert.match(logs, new RegExp(`wrote \\S+/\\.checkpoint-3\\.\\S+/${name} `));
    }
    for (const name of models)
      assert.match(logs, new RegExp(`wrote \\S+/\\.files\\.\\S+/${name} `));
    await verifyChecksums(checkpoint, "lockstep/checksums.json", [...written, ...models]);
    if (numShards !== 4) return;
    const resume = ["--resume_from_checkpoint", checkpoint, "--reducer_processes", "2"];
    const again = await run("again", ...resume);
    assert.equal(again.code, 0, again.stderr);
    assert.equal(digestOf(again), digestOf(threads));
    assert.deepEqual(await tensorsOf("again"), await tensorsOf("threads"));
  });
}

test("a shard with a mirror writes its part itself, too", { timeout: 240_000 }, async () => {
  const mirrored = ["--reducer_processes", "4", "--reducer_replicas", "2"];
  const outcome = await run("mirrored", ...mirrored);
  assert.equal(outcome.code, 0, outcome.stderr);
  const logs = logOf("mirrored", 1) + logOf("mirrored", 2);
  for (const name of filesIn("mirrored", "checkpoint-3")) {
    assert.match(logs, new RegExp(`wrote \\S+checkpoint-3\\S+${name}`));
  }
  assert.match(logs, /wrote \S+checkpoint-3\S+optimizer-00002-of-00002/);
  const place = ["checkpoint-3"];
  assert.deepEqual(await tensorsOf("mirrored", ...place), await tensorsOf("threads", ...place));
});
