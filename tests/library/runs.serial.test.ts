import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import {
  isLockstepError,
  loadConfig,
  prepareRun,
  startCluster,
  startCoordinator,
  trainLocal,
} from "#run/index";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";
import { descendantsOf } from "#tests/support/processes";

// Runs of a program, with an engine without TensorFlow.

let job: TinyJob;
const outputOf = (name: string): string => join(job.directory, name);

const load = async (output: string, keys: Readonly<Record<string, unknown>> = {}) => {
  const { config, warnings } = await loadConfig(job.configFile, {
    ...{ output_dir: outputOf(output), metrics_port: null, ...keys },
  });
  assert.deepEqual(warnings, []);
  return config;
};

before(async () => {
  job = await createTinyJob({
    engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
  });
});
after(() => job.remove());

test("a prepared run in this process and a cluster end with the same weights, and tell the same", async () => {
  const prepared = await prepareRun(await load("local"));
  const local = trainLocal(prepared);
  const types = new Set<string>();
  const losses: number[] = [];
  for await (const event of local) {
    types.add(event.type);
    if (event.type === "step.completed") losses.push(event.loss);
  }
  await prepared.close();
  const cluster = startCluster(await load("cluster", { min_workers: 2 }));
  let numWorkers = 0;
  const clusterLosses: number[] = [];
  for await (const event of cluster) {
    types.delete(event.type);
    if (event.type === "worker.joined") numWorkers++;
    if (event.type === "step.completed") clusterLosses.push(event.loss);
  }
  assert.deepEqual([...types], [], "a cluster tells all that one process tells");
  assert.deepEqual(losses, clusterLosses);
  const [ours, theirs] = [await local.outcome, await cluster.outcome];
  assert.equal(ours.mastersSha256, theirs.mastersSha256);
  assert.deepEqual([ours.outcome, ours.step, ours.directory], ["finished", 6, outputOf("local")]);
  assert.deepEqual(theirs.directory, outputOf("cluster"));
  assert.equal(numWorkers, 2);
  assert.deepEqual(descendantsOf(process.pid), [], "workers end with the run");
});

test("a cluster that is left saves its step; one process that is left saves nothing", async () => {
  const keys = { max_steps: 100_000, eval_on_start: false, sample_prompt: null };
  const cluster = startCluster(await load("left", keys));
  for await (const event of cluster) if (event.type === "step.completed") break;
  const { outcome, step, directory } = await cluster.outcome;
  assert.equal(outcome, "interrupted");
  assert.equal(directory, outputOf(`left/checkpoint-${step}`));
  assert.ok(existsSync(join(directory, "model.safetensors")));

  const local = trainLocal(await load("nothing", keys));
  for await (const event of local) if (event.type === "step.completed") break;
  assert.equal((await local.outcome).outcome, "interrupted");
  assert.equal((await local.outcome).directory, undefined);
  const saved = (await readdir(outputOf("nothing"))).filter((name) => /safetensors/.test(name));
  assert.deepEqual(saved, []);
});

test("a run that is stopped before its first step ends as interrupted and gives its directory up", async () => {
  const stop = new AbortController();
  const preparing = startCluster(await load("early"), { signal: stop.signal });
  for await (const event of preparing) {
    if (event.type === "phase.changed" && event.phase === "preparing") stop.abort();
  }
  const nothing = { outcome: "interrupted", step: 0, directory: undefined, seconds: 0 };
  assert.deepEqual(await preparing.outcome, { ...nothing, mastersSha256: undefined });
  for (const start of [startCluster, trainLocal]) {
    const again = start(await load("early"), { signal: stop.signal });
    assert.deepEqual(await again.outcome, { ...nothing, mastersSha256: undefined });
  }
});

test("what one process does not act on is refused wherever its configuration came from", async () => {
  const config = await load("refused", { save_strategy: "steps", save_steps: 2 });
  await assert.rejects(
    async () => {
      for await (const event of trainLocal(config)) assert.equal(event.type, "run.failed");
    },
    (error) =>
      isLockstepError(error) &&
      error.code === "E_CONFIG_UNSUPPORTED" &&
      error.message.includes("the program's save_strategy"),
  );
  assert.ok(!existsSync(outputOf("refused")));
  await assert.rejects(
    loadConfig(job.configFile, { save_strategy: "steps" }, { command: "train-local" }),
    isLockstepError,
  );
});

test("a configuration that loadConfig did not make is refused, and so is a prepared run that is closed", async () => {
  const isError =
    (code: string) =>
    (error: unknown): boolean =>
      isLockstepError(error) && error.code === code;
  const config = await load("unchecked");
  const changed = { ...config, max_steps: "6", workers: "two" } as unknown as typeof config;
  for (const start of [startCluster, startCoordinator, trainLocal]) {
    await assert.rejects(start(changed).outcome, isError("E_ARGUMENT"));
  }
  await assert.rejects(prepareRun(changed), isError("E_ARGUMENT"));
  assert.ok(!existsSync(outputOf("unchecked")));
  const prepared = await prepareRun(config);
  await prepared.close();
  await assert.rejects(trainLocal(prepared).outcome, isError("E_CLOSED"));
});

test("keys that are no object and values that no file can hold are refused by name", async () => {
  const anything = (value: unknown): Record<string, unknown> => value as Record<string, unknown>;
  for (const keys of [null, 3, [], new Map([["seed", 1]]), new URL("file:///a.yaml"), () => 1]) {
    await assert.rejects(loadConfig(anything(keys)), /source must be an object/);
    await assert.rejects(loadConfig(job.configFile, anything(keys)), /overrides must be an object/);
  }
  for (const value of [3n, () => 1, Symbol("a"), Number.NaN]) {
    await assert.rejects(
      loadConfig(job.configFile, { learning_rate: value }),
      (error) => isLockstepError(error) && error.code === "E_CONFIG_INVALID",
    );
  }
  const command = "trainlocal" as "train";
  await assert.rejects(loadConfig(job.configFile, {}, { command }), /command must be train or/);
});
