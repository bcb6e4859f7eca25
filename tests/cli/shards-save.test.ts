import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights, verifyChecksums } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { writeRandomModel } from "#bench/shards/random-model";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Shards of other processes write their part of a checkpoint and of the result themselves.

let job: TinyJob;
let threads: CommandOutcome;

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
    ...{ eval_on_start: false, save_strategy: "steps", save_steps: 3, max_steps: 4 },
    // The embedding alone is larger than two shards of four.
    ...{ max_shard_size: "600KB", ema_decay: 0.5 },
  });
  const shape = { hidden: 64, layers: 1, intermediate: 128, heads: 4, vocabulary: 4_500 };
  await writeRandomModel(join(job.directory, "larger"), shape);
  threads = await run("threads", "--reducer_shards", "2");
  assert.equal(threads.code, 0, threads.stderr);
});

after(() => job.remove());

const run = (output: string, ...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(
    [
      ...["train", job.configFile, "--json-logs", "--output_dir", join(job.directory, output)],
      ...["--model_name_or_path", join(job.directory, "larger"), ...args],
    ],
    join(job.directory, "cache"),
  );

const digestOf = (outcome: CommandOutcome): string | undefined =>
  outcome.of("run.completed")[0]?.mastersSha256;

const filesIn = (...path: string[]): readonly string[] =>
  readdirSync(join(job.directory, ...path)).filter((name) => name.endsWith(".safetensors"));

const logOf = (output: string, reducer: number): string =>
  readFileSync(join(job.directory, output, "logs", `reducer-${reducer}.log`), "utf8");

/** Bytes of every tensor of a model, as stored. */
async function tensorsOf(...path: string[]): Promise<ReadonlyMap<string, Buffer>> {
  const weights = await ModelWeights.open(join(job.directory, ...path));
  const tensors = new Map<string, Buffer>();
  for (const name of weights.names()) {
    const bytes = Buffer.alloc(weights.info(name).sizeBytes);
    await weights.readBytes(name, bytes, 0);
    tensors.set(name, bytes);
  }
  await weights.close();
  return tensors;
}

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
