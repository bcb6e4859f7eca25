import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { CoordinatorOptions } from "#coordinator/options";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import { type RunningReducer, startReducer } from "#reducer/start-reducer";
import { hostPort } from "#lib/core/address";
import { float16Job, float16Updates, sequentialOracle, testJob } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

const totalSteps = 4;
const secret = "of the run's coordinators";

interface TestReducers {
  readonly reducers: readonly RunningReducer[];
  readonly lines: string[];
  readonly options: Pick<CoordinatorOptions, "startShard" | "numShards">;
}

/** Processes of shards, in this process. */
async function startReducers(t: TestContext, numShards: number): Promise<TestReducers> {
  const lines: string[] = [];
  const reducers = await Promise.all(
    Array.from({ length: numShards }, () =>
      startReducer({
        ...{ listenHost: "127.0.0.1", listenPort: 0, security: {}, idleTimeoutMs: 0 },
        log: (line) => lines.push(line),
      }),
    ),
  );
  t.after(async () => {
    for (const reducer of reducers) await reducer.close();
  });
  const addresses = reducers.map(({ port }) => hostPort("127.0.0.1", port));
  const startShard = startRemoteShards(addresses, { secret, timeoutMs: 20_000, note: () => {} });
  return { reducers, lines, options: { startShard, numShards } };
}

async function trained(overrides: Partial<CoordinatorOptions>, numWorkers = 2) {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    minWorkers: numWorkers,
    ...overrides,
  });
  const workers = Array.from({ length: numWorkers }, () => spawnWorker(address));
  const outcome = await coordinator.run();
  await outcome.releaseShards(true);
  for (const { exited } of workers) {
    const { code, stderr } = await exited;
    assert.equal(code, 0, stderr);
  }
  return { outcome, recorder };
}

test("shards in processes end with the bits of one thread, and with the run", limit, async (t) => {
  for (const numShards of [1, 3]) {
    const { reducers, options, lines } = await startReducers(t, numShards);
    const { outcome, recorder } = await trained(options, numShards);
    const oracle = await sequentialOracle(totalSteps);
    assert.equal(outcome.mastersSha256, oracle.mastersSha256);
    assert.deepEqual(
      recorder.of("step.completed").map(({ gradientNorm }) => gradientNorm),
      oracle.norms,
    );
    const ends = await Promise.all(reducers.map(({ ended }) => ended));
    assert.deepEqual(new Set(ends), new Set(["finished"]));
    assert.equal(lines.filter((line) => line.includes("has opened")).length, numShards);
    const metrics = await (reducers[0] as RunningReducer).metrics.registry.metrics();
    assert.match(metrics, new RegExp(`lockstep_reducer_updates_total ${totalSteps}\\n`));
    const rpcs = recorder.of("rpc.handled").map(({ method }) => method);
    assert.ok(rpcs.includes("PushGradients") && rpcs.includes("PullParameters"), rpcs.join());
  }
});

test("a scaled loss that overflows is left out by processes as by threads", limit, async (t) => {
  const { options } = await startReducers(t, 2);
  const { outcome } = await trained({ ...options, job: float16Job, updates: float16Updates });
  const { mastersSha256 } = await sequentialOracle(totalSteps, float16Job);
  assert.equal(outcome.mastersSha256, mastersSha256);
});

test("Adafactor's sums over whole tensors come from processes too", limit, async (t) => {
  const { options } = await startReducers(t, 2);
  const updates = {
    optimizer: {
      name: "adafactor",
      settings: {
        ...{ scaleParameter: true, clipThreshold: 1, decayRate: -0.8, squareEpsilon: 1e-30 },
        ...{ scaleEpsilon: 1e-3, beta1: 0.9, weightDecay: 0 },
      },
    },
    learningRateAt: () => 1e-2,
    maxGradNorm: 1,
  };
  const { outcome } = await trained({ ...options, updates });
  const threads = await trained({ updates });
  assert.equal(outcome.mastersSha256, threads.outcome.mastersSha256);
  assert.equal(testJob.layout.tensors.length, 3);
});
