import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  balancedTokens,
  type ClusterPlan,
  estimateStep,
  measuredCosts,
  podsNeeded,
  type WireCosts,
} from "#bench/scale/model";
import { pointBytes, summarisePhase } from "#bench/scale/table";

/** Round numbers, so that the phases can be worked out by hand. */
const plan: ClusterPlan = {
  ...{ numParameters: 1e9, numTrainable: 1e9, numGpus: 10, gpuTeraflops: 100, mfu: 0.5 },
  ...{ tokensPerGpuAndStep: 50_000, groupsPerWorker: 2, workerGbitPerSecond: 8 },
  ...{ numShardPods: 2, shardsPerPod: 4, podGbitPerSecond: 80, podMemoryGbPerSecond: 1_000 },
};
const costs: WireCosts = {
  ...{ shardPullSecondsPerGb: 1, shardPushSecondsPerGb: 2 },
  ...{ workerPullSecondsPerGb: 0.5, workerPushSecondsPerGb: 2, workerTransferThreads: 1 },
  reduceNanosecondsPerParameter: 1.6,
};
const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual / expected - 1) < 1e-9, `${actual} is not ${expected}`);

test("each phase is as long as its slower end", () => {
  const step = estimateStep(plan, costs);
  // 2 GB a worker at 1 GB/s (network) against 20 GB over 2 pods at 4 GB/s (threads).
  near(step.pullSeconds, 2.5);
  near(step.computeSeconds, 6);
  // Twice: 2 GB at 0.5 GB/s (thread), against 10 GB a pod at 2 GB/s.
  near(step.pushSeconds, 10);
  near(step.reduceSeconds, 0.2);
  near(step.gpuShare, 6 / 18.7);
  near(step.tokensPerSecond, 500_000 / 18.7);
  near(step.podGb, 10);
  assert.equal(step.limit, "shards");
  assert.equal(estimateStep({ ...plan, numShardPods: 5 }, costs).limit, "worker");
  assert.equal(estimateStep({ ...plan, tokensPerGpuAndStep: 500_000 }, costs).limit, "compute");
  // Additions move 10 bytes a parameter: 5 groups of 10 GB a pod at 2.5 GB/s, twice.
  near(estimateStep({ ...plan, podMemoryGbPerSecond: 2.5 }, costs).pushSeconds, 40);
});

test("no more pods than the workers can use, and no fewer", () => {
  const numShardPods = podsNeeded(plan, costs);
  const waits = (pods: number): number => {
    const step = estimateStep({ ...plan, numShardPods: pods }, costs);
    return step.pullSeconds + step.pushSeconds;
  };
  assert.equal(numShardPods, 3);
  near(waits(numShardPods), waits(1_000));
  assert.ok(waits(numShardPods - 1) > waits(numShardPods) * 1.01);
});

test("with the balanced number of tokens the GPUs compute half of the time", () => {
  const tokensPerGpuAndStep = balancedTokens(plan, costs);
  near(estimateStep({ ...plan, tokensPerGpuAndStep }, costs).gpuShare, 0.5);
});

test("more of anything never makes a step longer", () => {
  const resources = [
    ...(["numShardPods", "shardsPerPod", "workerGbitPerSecond", "podGbitPerSecond"] as const),
    ...(["podMemoryGbPerSecond", "gpuTeraflops"] as const),
  ];
  const amount = fc.integer({ min: 1, max: 1_000 });
  fc.assert(
    fc.property(fc.array(amount, { minLength: 6, maxLength: 6 }), fc.nat(5), (amounts, which) => {
      const given = Object.fromEntries(resources.map((name, i) => [name, amounts[i] as number]));
      const name = resources[which] as (typeof resources)[number];
      const less: ClusterPlan = { ...plan, ...given };
      const more: ClusterPlan = { ...less, [name]: less[name] * 2 };
      const before = estimateStep(less, measuredCosts).stepSeconds;
      assert.ok(estimateStep(more, measuredCosts).stepSeconds <= before * (1 + 1e-12));
    }),
  );
});

test("a point's figures are medians over its steps, per byte that was moved", () => {
  const phase = summarisePhase(
    [
      { seconds: 9, shardCpuSeconds: 9, workerCpuSeconds: 9 },
      { seconds: 2, shardCpuSeconds: 1, workerCpuSeconds: 3 },
      { seconds: 1, shardCpuSeconds: 0.5, workerCpuSeconds: 2 },
    ],
    4e9,
  );
  assert.deepEqual(phase, {
    ...{ seconds: 2, bytesPerSecond: 2e9, shardCpuSecondsPerGb: 0.25, workerCpuSecondsPerGb: 0.75 },
  });
  const point = {
    numParameters: 1e9,
    numWorkers: 2,
    numShards: 1,
    groupsPerWorker: 1,
    numHosts: 2,
  };
  assert.equal(pointBytes(point), 28e9);
  // A shard lets no more than 4 GiB of groups wait.
  assert.equal(pointBytes({ ...point, numWorkers: 64 }), 24e9 + 4 * 1024 ** 3);
});
