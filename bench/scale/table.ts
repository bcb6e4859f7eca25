/** The figures of a point and how they are shown; no clock, no process. */
import { median } from "#bench/frame/compare";
import { markdownRow } from "#bench/frame/report";
import { shardBytesPerParameter, wireBytesPerParameter } from "./model.js";

export interface PointOptions {
  readonly millionParameters: number;
  readonly numWorkers: number;
  readonly numShards: number;
  readonly groupsPerWorker: number;
  /** Steps that are measured, after one that is not. */
  readonly numSteps: number;
  /** Processes that the simulated workers share. */
  readonly numHosts: number;
}

export interface PhaseSample {
  readonly seconds: number;
  /** Coordinator and shards: one process. */
  readonly shardCpuSeconds: number;
  /** All simulated workers. */
  readonly workerCpuSeconds: number;
}

interface PhaseResult {
  readonly seconds: number;
  /** Over all connections. */
  readonly bytesPerSecond: number;
  readonly shardCpuSecondsPerGb: number;
  readonly workerCpuSecondsPerGb: number;
}

export interface PointResult extends PointOptions {
  readonly numParameters: number;
  readonly stepSeconds: number;
  readonly pull: PhaseResult;
  readonly push: PhaseResult;
  /** Bytes are the float32 masters'. */
  readonly reduce: PhaseResult;
  readonly shardResidentGib: number;
}

export function summarisePhase(samples: readonly PhaseSample[], numBytes: number): PhaseResult {
  const seconds = median(samples.map((sample) => sample.seconds));
  const gigabytes = numBytes / 1e9;
  return {
    seconds,
    bytesPerSecond: numBytes / seconds,
    shardCpuSecondsPerGb: median(samples.map((s) => s.shardCpuSeconds)) / gigabytes,
    workerCpuSecondsPerGb: median(samples.map((s) => s.workerCpuSeconds)) / gigabytes,
  };
}

/** What a shard lets groups take that are on their way or wait for their turn (shard-reducer.ts). */
const maxAssemblyBytes = 4 * 1024 ** 3;

/** Memory of a point, all its processes, from above: every group on its way at once. */
export function pointBytes(options: {
  readonly numParameters: number;
  readonly numWorkers: number;
  readonly numShards: number;
  readonly groupsPerWorker: number;
  readonly numHosts: number;
}): number {
  const { numParameters, numWorkers, numShards, groupsPerWorker, numHosts } = options;
  const wireBytes = numParameters * wireBytesPerParameter;
  // A worker pushes one group at a time; a group that is whole may wait for the one before it.
  const groups = Math.min(numWorkers * groupsPerWorker, numWorkers * 2);
  const assemblies = Math.min(wireBytes * groups, maxAssemblyBytes * numShards);
  return numParameters * shardBytesPerParameter + assemblies + numHosts * wireBytes;
}

const columns: readonly (readonly [string, (point: PointResult) => string])[] = [
  ["parameters", (p) => `${(p.numParameters / 1e6).toFixed(0)}M`],
  ["workers", (p) => String(p.numWorkers)],
  ["shards", (p) => String(p.numShards)],
  ["groups", (p) => String(p.numWorkers * p.groupsPerWorker)],
  ["pull s", (p) => p.pull.seconds.toFixed(2)],
  ["push s", (p) => p.push.seconds.toFixed(2)],
  ["reduce s", (p) => p.reduce.seconds.toFixed(2)],
  ["step s", (p) => p.stepSeconds.toFixed(2)],
  ["pull GB/s", (p) => (p.pull.bytesPerSecond / 1e9).toFixed(2)],
  ["push GB/s", (p) => (p.push.bytesPerSecond / 1e9).toFixed(2)],
  ["shard CPU s/GB pull", (p) => p.pull.shardCpuSecondsPerGb.toFixed(2)],
  ["shard CPU s/GB push", (p) => p.push.shardCpuSecondsPerGb.toFixed(2)],
  ["worker CPU s/GB pull", (p) => p.pull.workerCpuSecondsPerGb.toFixed(2)],
  ["worker CPU s/GB push", (p) => p.push.workerCpuSecondsPerGb.toFixed(2)],
  ["coordinator RSS GiB", (p) => p.shardResidentGib.toFixed(1)],
];

/** A Markdown table. */
export function pointTable(points: readonly PointResult[]): string {
  return [
    markdownRow(columns.map(([title]) => title)),
    markdownRow(columns.map(() => "--:")),
    ...points.map((point) => markdownRow(columns.map(([, cell]) => cell(point)))),
  ].join("\n");
}
