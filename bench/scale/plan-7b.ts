/** Prints the table of docs/scaling.md: a 7B model on 8 to 512 GPUs. Run: node dist/bench/scale/plan-7b.js */
import { markdownRow } from "#bench/frame/report";
import {
  balancedTokens,
  type ClusterPlan,
  estimateStep,
  measuredCosts,
  podsNeeded,
  type WireCosts,
} from "./model.js";

/** An H100 node: 8 GPUs behind 400 Gbit/s; a shard pod: 16 cores behind 100 Gbit/s, 8 channels of DDR5. */
const base: Omit<ClusterPlan, "numGpus" | "numShardPods"> = {
  ...{ numParameters: 7e9, numTrainable: 7e9 },
  ...{ gpuTeraflops: 989, mfu: 0.4, tokensPerGpuAndStep: 131_072, groupsPerWorker: 1 },
  ...{ workerGbitPerSecond: 50, shardsPerPod: 8, podGbitPerSecond: 100, podMemoryGbPerSecond: 200 },
};
const variants: readonly (readonly [string, Partial<ClusterPlan>, WireCosts])[] = [
  ["as measured", {}, measuredCosts],
  ["4 groups a worker", { groupsPerWorker: 4 }, measuredCosts],
  ["4 transfer threads a worker", {}, { ...measuredCosts, workerTransferThreads: 4 }],
  ["LoRA, 40M trained", { numTrainable: 4e7 }, measuredCosts],
];
const titles = [
  ...["form", "GPUs", "pods", "pull s", "compute s", "push s", "reduce s", "GPUs busy"],
  ...["tokens/s", "limit", "GB a pod", "tokens a GPU for 50 % busy"],
];
console.log(markdownRow(titles));
console.log(markdownRow(titles.map(() => "--:")));
for (const [name, change, costs] of variants) {
  for (const numGpus of [8, 64, 512]) {
    const numShardPods = podsNeeded({ ...base, ...change, numGpus, numShardPods: 1 }, costs);
    const plan: ClusterPlan = { ...base, ...change, numGpus, numShardPods };
    const step = estimateStep(plan, costs);
    console.log(
      markdownRow([
        ...[name, String(numGpus), String(numShardPods), step.pullSeconds.toFixed(2)],
        ...[step.computeSeconds.toFixed(1), step.pushSeconds.toFixed(2)],
        ...[step.reduceSeconds.toFixed(2), `${(100 * step.gpuShare).toFixed(0)} %`],
        ...[step.tokensPerSecond.toFixed(0), step.limit, step.podGb.toFixed(1)],
        balancedTokens(plan, costs).toFixed(0),
      ]),
    );
  }
}
