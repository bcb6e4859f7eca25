/**
 * How long a step of full fine-tuning takes on a cluster, from rates: a product of bandwidths, no
 * simulation. The phases of a step follow each other as in the worker's loop: pull the parameters,
 * compute a group, push it, and so on; then the shards reduce.
 */

export interface ClusterPlan {
  readonly numParameters: number;
  /** Those that are trained: only they travel and are held by shards. */
  readonly numTrainable: number;
  /** One worker each. */
  readonly numGpus: number;
  /** Dense peak in the compute type. */
  readonly gpuTeraflops: number;
  /** Share of the peak that the model's 6 operations a parameter and token reach, 0 to 1. */
  readonly mfu: number;
  readonly tokensPerGpuAndStep: number;
  /** Gradient groups of a worker and step: each is pushed. */
  readonly groupsPerWorker: number;
  /** A worker's share of its machine's network. */
  readonly workerGbitPerSecond: number;
  readonly numShardPods: number;
  /** Shard threads of a pod, a core each. */
  readonly shardsPerPod: number;
  readonly podGbitPerSecond: number;
  /** Of a pod, in bytes read and written. */
  readonly podMemoryGbPerSecond: number;
}

/** Rates of this code on one core; docs/scaling.md says where they were measured. */
export interface WireCosts {
  /** Processor time of a shard thread for a gigabyte (1e9 bytes) that it sends. */
  readonly shardPullSecondsPerGb: number;
  /** The same for a gigabyte that it takes and adds. */
  readonly shardPushSecondsPerGb: number;
  readonly workerPullSecondsPerGb: number;
  readonly workerPushSecondsPerGb: number;
  /** Event loops of a worker that transfer at the same time. */
  readonly workerTransferThreads: number;
  /** Last addition, norm, AdamW and publication of one parameter on one thread. */
  readonly reduceNanosecondsPerParameter: number;
}

/** Medians of bench/results/scale_2x-amd-epyc_2026-11-25.md. */
export const measuredCosts: WireCosts = Object.freeze({
  shardPullSecondsPerGb: 1.03,
  shardPushSecondsPerGb: 1.04,
  workerPullSecondsPerGb: 1.43,
  workerPushSecondsPerGb: 1.43,
  workerTransferThreads: 1,
  reduceNanosecondsPerParameter: 1.6,
});

/** bfloat16 both ways; vectors are too few to count. */
export const wireBytesPerParameter = 2;
/** A group's addition: 2 bytes in, a float32 sum read and written. */
const additionBytesPerParameter = 10;
/** Addition and norm, then AdamW: 4 arrays read, 3 written, bfloat16 out. */
const reduceBytesPerParameter = additionBytesPerParameter + 4 * 4 + 3 * 4 + wireBytesPerParameter;
/** Masters, two moments and the sum in float32, two published versions in bfloat16. */
export const shardBytesPerParameter = 20;
const floatingPointOperations = 6;

type Limit = "compute" | "worker" | "shards" | "reduction";

interface StepEstimate {
  readonly pullSeconds: number;
  readonly computeSeconds: number;
  readonly pushSeconds: number;
  readonly reduceSeconds: number;
  readonly stepSeconds: number;
  /** Share of the step in which the GPUs compute. */
  readonly gpuShare: number;
  readonly tokensPerSecond: number;
  /** What takes the largest part; `worker` and `shards`: the slower end of the wire. */
  readonly limit: Limit;
  /** Memory of a shard pod without the groups that wait. */
  readonly podGb: number;
}

const gbPerSecond = (gbit: number): number => gbit / 8;

/** The rates of both ends in GB/s, for one direction. */
function endRates(
  plan: ClusterPlan,
  workerSecondsPerGb: number,
  shardSecondsPerGb: number,
  threads: number,
): { readonly worker: number; readonly pod: number } {
  return {
    worker: Math.min(gbPerSecond(plan.workerGbitPerSecond), threads / workerSecondsPerGb),
    pod: Math.min(gbPerSecond(plan.podGbitPerSecond), plan.shardsPerPod / shardSecondsPerGb),
  };
}

export function estimateStep(plan: ClusterPlan, costs: WireCosts = measuredCosts): StepEstimate {
  const { numTrainable, numGpus, numShardPods, groupsPerWorker } = plan;
  const threads = costs.workerTransferThreads;
  const wireGb = (numTrainable * wireBytesPerParameter) / 1e9;
  const pull = endRates(plan, costs.workerPullSecondsPerGb, costs.shardPullSecondsPerGb, threads);
  const push = endRates(plan, costs.workerPushSecondsPerGb, costs.shardPushSecondsPerGb, threads);
  const pods = numShardPods;
  const pullAt = { worker: wireGb / pull.worker, shards: (numGpus * wireGb) / (pods * pull.pod) };
  const additionGb = (numTrainable * additionBytesPerParameter) / 1e9;
  const pushAt = {
    worker: wireGb / push.worker,
    shards: (numGpus / pods) * Math.max(wireGb / push.pod, additionGb / plan.podMemoryGbPerSecond),
  };
  const pullSeconds = Math.max(pullAt.worker, pullAt.shards);
  const pushSeconds = groupsPerWorker * Math.max(pushAt.worker, pushAt.shards);
  const computeSeconds =
    (floatingPointOperations * plan.numParameters * plan.tokensPerGpuAndStep) /
    (plan.gpuTeraflops * 1e12 * plan.mfu);
  const reduceSeconds = Math.max(
    (numTrainable * costs.reduceNanosecondsPerParameter) / 1e9 / (pods * plan.shardsPerPod),
    (numTrainable * reduceBytesPerParameter) / 1e9 / (pods * plan.podMemoryGbPerSecond),
  );
  const stepSeconds = pullSeconds + computeSeconds + pushSeconds + reduceSeconds;
  const wireLimit: Limit =
    pullAt.shards + groupsPerWorker * pushAt.shards >
    pullAt.worker + groupsPerWorker * pushAt.worker
      ? "shards"
      : "worker";
  const parts: readonly (readonly [Limit, number])[] = [
    ["compute", computeSeconds],
    [wireLimit, pullSeconds + pushSeconds],
    ["reduction", reduceSeconds],
  ];
  return {
    ...{ pullSeconds, computeSeconds, pushSeconds, reduceSeconds, stepSeconds },
    gpuShare: computeSeconds / stepSeconds,
    tokensPerSecond: (numGpus * plan.tokensPerGpuAndStep) / stepSeconds,
    limit: parts.reduce((largest, part) => (part[1] > largest[1] ? part : largest))[0],
    podGb: (numTrainable * shardBytesPerParameter) / 1e9 / pods,
  };
}

/** The fewest pods with which the shards' end of the wire is not the slower one. */
export function podsNeeded(plan: ClusterPlan, costs: WireCosts = measuredCosts): number {
  const waits = (numShardPods: number): number => {
    const step = estimateStep({ ...plan, numShardPods }, costs);
    return step.pullSeconds + step.pushSeconds;
  };
  const atTheWorkersRate = waits(plan.numGpus * 1_000) * (1 + 1e-9);
  let numPods = 1;
  while (waits(numPods) > atTheWorkersRate) numPods++;
  return numPods;
}

/** Tokens a GPU and step at which computing takes as long as everything else. */
export function balancedTokens(plan: ClusterPlan, costs: WireCosts = measuredCosts): number {
  const { computeSeconds, stepSeconds } = estimateStep(plan, costs);
  return (plan.tokensPerGpuAndStep * (stepSeconds - computeSeconds)) / computeSeconds;
}
