import type {
  LockstepEvent,
  Metrics,
  RunPhase,
  RunResumed,
  RunStarted,
  StepCompleted,
  WorkerState,
  WorkerTelemetry,
} from "#lib/core/events";
import type { GeneralLoss } from "#lib/core/forgetting";

export interface WorkerView {
  readonly workerId: string;
  readonly host: string;
  readonly pid: number;
  readonly deviceKind: string;
  readonly state: WorkerState;
  readonly step: number | undefined;
  readonly group: number | undefined;
  readonly telemetry: WorkerTelemetry | undefined;
}

export interface Evaluation {
  readonly step: number;
  readonly loss: number;
  readonly metrics: Metrics;
}

export interface Sample {
  readonly step: number;
  readonly prompt: string;
  readonly text: string;
  /** The prompt is a user's message, the text the answer. */
  readonly isChat: boolean;
}

/** What is known of a run: a pure fold over its events. */
export interface RunView {
  readonly started: RunStarted | undefined;
  /** What was before this process, where the run goes on from a checkpoint. */
  readonly resumed: RunResumed | undefined;
  readonly phase: RunPhase;
  readonly phaseDetail: string | undefined;
  readonly phaseSinceMs: number;
  readonly workers: ReadonlyMap<string, WorkerView>;
  readonly lastStep: StepCompleted | undefined;
  readonly lastStepAtMs: number;
  /** Losses of the steps so far, oldest first. */
  readonly losses: readonly number[];
  /** Seconds of the latest steps, at most `recentSteps`. */
  readonly recentStepSeconds: readonly number[];
  readonly numTokens: number;
  readonly evaluations: readonly Evaluation[];
  /** Of general rows. */
  readonly general: readonly GeneralLoss[];
  readonly samples: readonly Sample[];
}

/** The estimate of the time left follows the pace of so many steps. */
const recentSteps = 20;

export function emptyView(nowMs: number): RunView {
  return {
    started: undefined,
    resumed: undefined,
    phase: "preparing",
    phaseDetail: undefined,
    phaseSinceMs: nowMs,
    workers: new Map(),
    lastStep: undefined,
    lastStepAtMs: nowMs,
    losses: [],
    recentStepSeconds: [],
    numTokens: 0,
    evaluations: [],
    general: [],
    samples: [],
  };
}

export function foldEvent(view: RunView, event: LockstepEvent, nowMs: number): RunView {
  switch (event.type) {
    case "run.started":
      return { ...view, started: event };
    case "run.resumed":
      return {
        ...view,
        resumed: event,
        losses: event.losses.map(({ loss }) => loss),
        numTokens: event.numTokens,
        evaluations: event.evaluations,
        general: event.general ?? [],
        samples: event.samples.map(({ isChat = false, ...sample }) => ({ ...sample, isChat })),
      };
    case "shards.rolledBack":
      return {
        ...view,
        ...{ resumed: undefined, lastStep: undefined, numTokens: 0 },
        ...{ losses: [], evaluations: [], general: [], samples: [] },
      };
    case "phase.changed":
      return {
        ...view,
        phase: event.phase,
        phaseDetail: event.detail,
        phaseSinceMs: nowMs,
        // The first step of a phase of training is timed from here, not from before an evaluation.
        lastStepAtMs: event.phase === "training" ? nowMs : view.lastStepAtMs,
      };
    case "worker.joined":
      return withWorker(view, event.workerId, {
        host: event.host,
        pid: event.pid,
        deviceKind: event.deviceKind,
        state: "idle",
      });
    case "worker.lost":
      return withoutOldLost(
        withWorker(view, event.workerId, { state: "lost", step: undefined, group: undefined }),
      );
    case "worker.left": {
      const workers = new Map(view.workers);
      workers.delete(event.workerId);
      return { ...view, workers };
    }
    case "worker.state": {
      // States come with heartbeats, later than leases: the group stays until the next lease.
      const known = view.workers.get(event.workerId);
      return withWorker(view, event.workerId, {
        state: event.state,
        step: event.step ?? known?.step,
        group: event.group ?? known?.group,
      });
    }
    case "group.leased":
      return withWorker(view, event.workerId, {
        step: event.isMeasurement === true ? undefined : event.step + 1,
        group: event.group,
      });
    case "worker.telemetry":
      return withWorker(view, event.workerId, { telemetry: event });
    case "step.completed":
      return {
        ...view,
        lastStep: event,
        lastStepAtMs: nowMs,
        losses: [...view.losses, event.loss],
        recentStepSeconds: [...view.recentStepSeconds, event.stepSeconds].slice(-recentSteps),
        numTokens: view.numTokens + event.numTokens,
      };
    case "evaluation.completed": {
      return { ...view, evaluations: [...view.evaluations, event] };
    }
    case "general.evaluated":
      return { ...view, general: [...view.general, event] };
    case "sample.generated": {
      const { step, prompt, text, isChat = false } = event;
      return { ...view, samples: [...view.samples, { step, prompt, text, isChat }] };
    }
    case "run.completed":
    case "run.failed":
      return { ...view, phase: "done", phaseDetail: undefined, phaseSinceMs: nowMs };
    case "note":
    case "shard.lost":
    case "log.lines":
    case "mirror.compared":
    case "events.dropped":
    case "shard.takenOver":
    case "mirror.lost":
    case "mirror.inPlace":
    case "fisher.measured":
    case "worker.quarantined":
    case "worker.corrupted":
    case "worker.pace":
    case "group.diverged":
    case "push.refused":
    case "group.completed":
    case "group.requeued":
    case "checkpoint.saved":
    case "checkpoint.failed":
    case "bytes.transferred":
    case "connections.refused":
    case "pushes.waiting":
    case "rpc.handled":
    case "history.logged":
      return view;
  }
}

/** Workers that start and die again and again are remembered so far. */
const maxLost = 256;

function withoutOldLost(view: RunView): RunView {
  const lost = [...view.workers].filter(([, { state }]) => state === "lost");
  if (lost.length <= maxLost) return view;
  const old = new Set(lost.slice(0, -maxLost).map(([workerId]) => workerId));
  return { ...view, workers: new Map([...view.workers].filter(([id]) => !old.has(id))) };
}

function withWorker(view: RunView, workerId: string, change: Partial<WorkerView>): RunView {
  const known: WorkerView = view.workers.get(workerId) ?? {
    workerId,
    host: "",
    pid: 0,
    deviceKind: "",
    state: "idle",
    step: undefined,
    group: undefined,
    telemetry: undefined,
  };
  return { ...view, workers: new Map(view.workers).set(workerId, { ...known, ...change }) };
}

/** Steps made, by former processes of the run too. */
export const stepsMade = ({ lastStep, resumed }: RunView): number =>
  lastStep?.step ?? resumed?.step ?? 0;

/** Whether figures of tokens count padding: rows are shorter than a batch is wide. */
export const countsPadding = ({ started }: RunView): boolean =>
  started !== undefined && started.numTrainTokens < started.numTrainRows * started.sequenceLength;

/** Seconds until the last step, from the mean of recent steps; undefined before the first one. */
export function secondsLeft(view: RunView, nowMs: number): number | undefined {
  const { lastStep, recentStepSeconds } = view;
  if (lastStep === undefined || recentStepSeconds.length === 0) return undefined;
  const mean =
    recentStepSeconds.reduce((sum, seconds) => sum + seconds, 0) / recentStepSeconds.length;
  const intoStep = view.phase === "training" ? (nowMs - view.lastStepAtMs) / 1000 : 0;
  const remaining = lastStep.totalSteps - lastStep.step;
  return Math.max(0, remaining * mean - Math.min(intoStep, mean));
}
