import { RandomStream } from "#lib/core/random";

/** Points of a worker's loop at which its process waits for the director. */
const workerPhases = [
  "registering",
  "asking",
  "pulling",
  "leased",
  "computed",
  "pushing",
  "pushed",
  "completed",
  "evaluating",
] as const;
/** The same of a coordinator. */
const coordinatorPhases = [
  "starting",
  "opening",
  "reducing",
  "applying",
  "saving",
  "placing",
  "finishing",
] as const;
/** The same of a reducer, by the call that it carries out. */
const reducerPhases = [
  "shard:openStep",
  "shard:reduce",
  "shard:takeSum",
  "shard:takeState",
  "shard:apply",
  "shard:read",
] as const;
export type Phase =
  | (typeof workerPhases)[number]
  | (typeof coordinatorPhases)[number]
  | (typeof reducerPhases)[number];

/** When a fault begins: at the nth time that some process is at a phase, or after so much of the run. */
export type Moment =
  | { readonly at: "phase"; readonly phase: Phase; readonly nth: number }
  /** After the first step. */
  | { readonly at: "ms"; readonly afterMs: number }
  /** Through all proxies, both ways. */
  | { readonly at: "bytes"; readonly afterBytes: number };

/** Calls of the wire by their last name. */
const calls = [
  "Register",
  "NextTask",
  "CompleteTask",
  "Heartbeat",
  "PushGradients",
  "PullParameters",
] as const;
export type Call = (typeof calls)[number];

/** What is done to the nth call of a kind, or to a message of its stream. */
export type MessageAct =
  | { readonly act: "replay" | "lose-reply"; readonly call: Call; readonly nth: number }
  | {
      readonly act: "hold";
      readonly call: Call;
      readonly nth: number;
      readonly forMs: number;
    }
  | {
      readonly act: "duplicate" | "swap" | "corrupt" | "drop";
      readonly call: "PushGradients";
      readonly nth: number;
      readonly message: number;
    };

export const lies = [
  "wrong-sums",
  "not-a-number",
  "wrong-weight",
  "stale-lease",
  "lease-of-another",
  "foreign-job",
  "half-push",
  "nothing-pushed",
  "failures",
] as const;
export type Lie = (typeof lies)[number];

/** `who` counts the workers; where the moment is a worker's phase, that worker is meant. */
export type Fault =
  | { readonly kind: "kill-worker"; readonly when: Moment; readonly who: number }
  | {
      readonly kind: "stop-worker" | "stop-coordinator";
      readonly when: Moment;
      readonly who: number;
      readonly forMs: number;
    }
  /** Where the moment is a reducer's phase, that reducer is meant. */
  | { readonly kind: "kill-reducer"; readonly when: Moment; readonly who: number }
  | { readonly kind: "kill-coordinator" | "term-coordinator"; readonly when: Moment }
  | { readonly kind: "cut"; readonly when: Moment; readonly port: number }
  | {
      readonly kind: "black-hole" | "ports-away";
      readonly when: Moment;
      readonly port: number;
      readonly forMs: number;
    }
  | {
      readonly kind: "delay";
      readonly when: Moment;
      readonly port: number;
      readonly byMs: number;
      readonly forMs: number;
    }
  | { readonly kind: "message"; readonly is: MessageAct }
  | {
      readonly kind: "clock";
      readonly when: Moment;
      /** The coordinator, or a worker by its number. */
      readonly who: "coordinator" | number;
      readonly byMs: number;
    }
  | { readonly kind: "disk-full"; readonly when: Moment; readonly forMs: number }
  | { readonly kind: "liar"; readonly lie: Lie };

export interface Schedule {
  readonly seed: number;
  readonly numWorkers: number;
  readonly numShards: number;
  /** A model whose gradients take several frames a shard. */
  readonly isLarge: boolean;
  /** Processes that keep each shard; absent: threads of the coordinator do. */
  readonly numReplicas?: 1 | 2;
  readonly faults: readonly Fault[];
}

/** Whether a member computes wrongly. */
export const hasWrongSums = (fault: Fault): boolean =>
  fault.kind === "liar" && fault.lie === "wrong-sums";

/** What a fault counts as. */
export const kindOf = (fault: Fault): string =>
  fault.kind === "message"
    ? `message-${fault.is.act}`
    : fault.kind === "liar"
      ? `liar-${fault.lie}`
      : fault.kind;

const kinds: readonly (readonly [Fault["kind"], weight: number])[] = [
  ["kill-worker", 5],
  ["stop-worker", 2],
  ["kill-coordinator", 3],
  ["term-coordinator", 1],
  ["stop-coordinator", 1],
  ["cut", 2],
  ["black-hole", 1],
  ["ports-away", 2],
  ["delay", 1],
  ["message", 4],
  ["clock", 2],
  ["disk-full", 1],
  ["liar", 3],
];

/** How often a phase comes, at least, in a run that nothing happens to. */
function timesIn(phase: Phase, numWorkers: number): number {
  switch (phase) {
    case "starting":
    case "finishing":
      return 1;
    case "registering":
      return numWorkers;
    case "saving":
    case "placing":
      return 3;
    case "opening":
    case "reducing":
    case "applying":
    case "evaluating":
      return 6;
    case "asking":
    case "pulling":
    case "leased":
    case "computed":
    case "pushing":
    case "pushed":
    case "completed":
      return 24;
    case "shard:openStep":
    case "shard:reduce":
    case "shard:takeSum":
    case "shard:apply":
      return 5;
    case "shard:takeState":
    case "shard:read":
      return 1;
  }
}

/** A pure function of the seed. @param seed integer in [0, 2^53) */
export function scheduleOf(seed: number): Schedule {
  const random = new RandomStream(seed, "test", 0);
  const below = (bound: number): number => random.nextBelow(bound);
  const oneOf = <T>(values: readonly T[]): T => values[below(values.length)] as T;
  const weighted = (): Fault["kind"] => {
    const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
    let left = below(total);
    for (const [kind, weight] of kinds) {
      if (left < weight) return kind;
      left -= weight;
    }
    return "kill-worker";
  };
  const numWorkers = 2 + below(3);
  const numShards = 1 + below(3);
  const atPhase = (phases: readonly Phase[]): Moment => {
    const phase = oneOf(phases);
    return { at: "phase", phase, nth: 1 + below(timesIn(phase, numWorkers)) };
  };
  const anyMoment = (): Moment => {
    const draw = below(10);
    if (draw < 5) return atPhase(workerPhases);
    if (draw < 7) return atPhase(coordinatorPhases);
    if (draw < 9) return { at: "ms", afterMs: below(800) };
    return { at: "bytes", afterBytes: 20_000 + below(300_000) };
  };
  const message = (): MessageAct => {
    const act = oneOf([
      "replay",
      "lose-reply",
      "hold",
      "duplicate",
      "swap",
      "corrupt",
      "drop",
    ] as const);
    const nth = 1 + below(8);
    if (act === "replay" || act === "lose-reply") return { act, call: oneOf(calls), nth };
    if (act === "hold") return { act, call: oneOf(calls), nth, forMs: 100 + below(3_000) };
    return { act, call: "PushGradients", nth, message: below(3) };
  };
  const fault = (kind: Fault["kind"], when: Moment): Fault => {
    switch (kind) {
      case "kill-worker":
      case "kill-reducer":
        return { kind, when, who: below(numWorkers) };
      case "stop-worker":
      case "stop-coordinator":
        return { kind, when, who: below(numWorkers), forMs: oneOf([200, 1_000, 4_000]) };
      case "kill-coordinator":
      case "term-coordinator":
        return { kind, when: below(3) > 0 ? atPhase(coordinatorPhases) : when };
      case "cut":
        return { kind, when, port: below(1 + numShards) };
      case "black-hole":
      case "ports-away":
        return { kind, when, port: below(1 + numShards), forMs: oneOf([500, 1_500, 5_000]) };
      case "delay":
        return { kind, when, port: below(1 + numShards), byMs: 20 + below(200), forMs: 2_000 };
      case "message":
        return { kind, is: message() };
      case "clock": {
        const who = below(2) === 0 ? "coordinator" : below(numWorkers);
        return { kind, when, who, byMs: oneOf([-86_400_000, -5_000, 5_000, 3_600_000]) };
      }
      case "disk-full":
        return { kind, when: { at: "phase", phase: "saving", nth: 1 + below(3) }, forMs: 2_000 };
      case "liar":
        return { kind, lie: oneOf(lies) };
    }
  };
  const numFaults = 1 + below(4);
  const faults: Fault[] = [];
  let before: Moment | undefined;
  for (let i = 0; i < numFaults; i++) {
    // Several at once: every third fault comes with the one before it.
    const when: Moment = before !== undefined && below(3) === 0 ? before : anyMoment();
    faults.push(fault(weighted(), when));
    before = when;
  }
  return { seed, numWorkers, numShards, isLarge: below(4) === 0, faults };
}

/** Moments of a reducer's life, and those at which a coordinator that has reducers kills one. */
const momentsOfShards: readonly Phase[] = [
  ...(["opening", "reducing", "applying", "saving"] as const),
  ...(["shard:openStep", "shard:reduce", "shard:apply"] as const),
];

/** One reducer is killed at a moment of the seed's. */
export function shardScheduleOf(seed: number, numReplicas: 1 | 2): Schedule {
  const random = new RandomStream(seed, "test", 2);
  const below = (bound: number): number => random.nextBelow(bound);
  const phases =
    numReplicas === 1 ? momentsOfShards : [...momentsOfShards, "shard:takeSum" as const];
  const draw = below(10);
  const phase = phases[below(phases.length)] as Phase;
  const nth = 1 + below(timesIn(phase, 2));
  const when: Moment =
    draw === 0
      ? { at: "phase", phase: "pushing", nth: 1 + below(timesIn("pushing", 2)) }
      : draw === 1
        ? { at: "ms", afterMs: below(800) }
        : { at: "phase", phase, nth };
  const faults: Fault[] = [{ kind: "kill-reducer", when, who: below(4) }];
  return { seed, numWorkers: 2, numShards: 2, isLarge: below(3) === 0, numReplicas, faults };
}
