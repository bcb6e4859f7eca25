/** What the process that holds the coordinator and the processes of simulated workers say to each other. */

export interface HostOptions {
  readonly coordinatorAddress: string;
  readonly numWorkers: number;
  /** Index of the first of them. */
  readonly firstWorker: number;
}

export type HostMessage =
  /** A worker holds the step's parameters and a lease, and waits to be told that all do. */
  | { readonly kind: "pulled"; readonly step: number; readonly cpuSeconds: number }
  /** A group's bytes have been taken by every shard. */
  | { readonly kind: "pushed"; readonly step: number; readonly cpuSeconds: number }
  | { readonly kind: "failed"; readonly reason: string };

/** All first leases of the step have their parameters: compute (which takes no time) and push. */
export interface ProceedMessage {
  readonly step: number;
}

/** Processor time of this process, all threads. */
export function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
