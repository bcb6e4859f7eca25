import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { Coordinator, hostPort } from "#coordinator/coordinator";
import { FrontDoor } from "#coordinator/front-door";
import { CoordinatorHttp } from "#coordinator/http";
import { CoordinatorMetrics } from "#coordinator/metrics";
import type { RunOutcome } from "#coordinator/options";
import { resumedEvent } from "#coordinator/resumed-event";
import { checkpointName, outputRecordFile } from "#lib/checkpoint/index";
import type { ResolvedConfig } from "#lib/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import { readRegularFile } from "#lib/core/regular-file";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { coordinatorOptions, splitAddress, wireSecurity } from "./coordinator-options.js";
import { turnWorkersAway } from "./farewell.js";
import { claimOutputDirectory } from "./output-directory.js";
import { type PreparedRun, prepareRun } from "./prepare.js";
import { pushOf, type PushResult } from "./push.js";
import { compareDevices, resumedPrecision, type ResumePoint } from "./resume.js";
import { markFinished, saveFinalModel } from "./files.js";
import { bestCheckpoint } from "./results.js";
import {
  type BegunRun,
  beginRun,
  findStart,
  mayBeFinished,
  type RunStart,
  type StartedRun,
} from "./start.js";
import { type TrainerLog, writeTrainerLog } from "./trainer-log.js";

/** A coordinator in this process, with its HTTP server, from a configuration to a saved model. */
export interface HostedRun {
  readonly coordinator: Coordinator;
  /** host:port for workers. */
  readonly controlAddress: string;
  /** Trained parameters. */
  readonly numParameters: number;
  /** Trains, saves the result and tells the bus how it ended. */
  readonly run: () => Promise<RunOutcome>;
}

export interface Host {
  /** Where the dashboard and the metrics are, undefined when switched off. */
  readonly httpAddress: string | undefined;
  /**
   * Takes the output directory and listens for workers, which wait until the run is open.
   * @returns host:port for workers
   */
  readonly listen: () => Promise<string>;
  /**
   * To be asked after `listen` and before a worker is started: a line that says so where the result that
   * the run is to make is there already, so that nothing is left to do.
   */
  readonly nothingLeft: () => Promise<string | undefined>;
  /** Tells the workers that knock that nothing is left to do. */
  readonly turnWorkersAway: () => Promise<void>;
  readonly open: () => Promise<HostedRun>;
  /** Ends the run with this error, wherever it is. */
  readonly fail: (error: unknown) => void;
  readonly close: () => Promise<void>;
}

/**
 * Starts the HTTP server, so that every later phase can be watched.
 *
 * @param options.hasOwnWorkers all workers are of this machine: if one cannot take part, none can
 */
export async function startHost(
  config: ResolvedConfig,
  bus: InProcessEventBus,
  { hasOwnWorkers = false } = {},
): Promise<Host> {
  let isReady = false;
  let prepared: PreparedRun | undefined;
  let start: RunStart | undefined;
  let begun: BegunRun | undefined;
  let trainerLog: TrainerLog | undefined;
  let releaseOutput: (() => Promise<void>) | undefined;
  let door: FrontDoor | undefined;
  let opened: Coordinator | undefined;
  /** What ended the run before it was open: workers may die while data is prepared. */
  let failure: { readonly error: unknown } | undefined;
  let push: PushResult | undefined;
  const http = await startHttp(config, bus, () => isReady);
  const close = async (): Promise<void> => {
    await http?.server.close();
    if (opened === undefined) await door?.close(0);
    trainerLog?.close();
    await prepared?.close();
    await start?.resume?.optimizer.close();
    await releaseOutput?.();
  };
  const detail = (text: string): void =>
    bus.publish({ type: "phase.changed", phase: "preparing", detail: text });
  const begin = async (workers: FrontDoor): Promise<BegunRun> => {
    if (begun !== undefined) return begun;
    start ??= await findStart(config);
    const { resume, output } = start;
    prepared = await prepareRun(start.config, {
      onDetail: detail,
      choosePrecision: async () => {
        if (resume !== undefined) return resumedPrecision(resume);
        if (output.record !== undefined && mayBeFinished(start as RunStart)) {
          const { bf16 } = output.record.identity.settings;
          return { bf16: bf16 === true, reason: `as the result in ${output.directory}` };
        }
        detail("waiting for the first worker, whose device decides bf16: auto");
        const { advisesBf16, deviceKind } = await workers.firstDevice();
        return { bf16: advisesBf16, reason: deviceKind };
      },
    });
    detail("comparing the data and the model with what is in output_dir");
    begun = await beginRun(prepared, start);
    if (begun.finished === undefined) push ??= await pushOf(config);
    return begun;
  };
  return {
    httpAddress: http?.address,
    close,
    fail: (error) => {
      failure ??= { error };
      door?.fail(error);
      opened?.fail(error);
    },
    listen: async () => {
      // A finished run has been pushed, and needs no hub to say so.
      if (!existsSync(join(config.output_dir, outputRecordFile))) push = await pushOf(config);
      releaseOutput = await claimOutputDirectory(config.output_dir);
      start = await findStart(config);
      if (!mayBeFinished(start)) push ??= await pushOf(config);
      const { host, port } = splitAddress(config.listen);
      const security = await wireSecurity(config);
      door = await FrontDoor.open({ bus, security, listenHost: host, listenPort: port });
      // From now on workers are answered; one of them may have to come before the run can be opened.
      isReady = true;
      return hostPort(config.advertise_host ?? host, door.port);
    },
    nothingLeft: async () => {
      if (door === undefined) throw new Error("Host.listen() has not been called");
      if (start === undefined || !mayBeFinished(start)) return undefined;
      const { finished, run } = await begin(door);
      return finished === undefined
        ? undefined
        : `Nothing is left to do: ${run.config.output_dir} holds the result of this run after ${finished.step} steps`;
    },
    turnWorkersAway: async () => {
      if (door !== undefined) await turnWorkersAway(door, config);
    },
    open: async () => {
      if (door === undefined) throw new Error("Host.listen() has not been called");
      const workers = door;
      const { run } = await begin(workers);
      const resume = start?.resume;
      const history = resume?.state.logHistory ?? [];
      const from = resume === undefined ? undefined : dirname(resume.directory);
      trainerLog = await writeTrainerLog(run.config.output_dir, bus, history, from);
      bus.publish(run.started);
      if (resume !== undefined) {
        bus.publish(resumedEvent(resume.directory, resume.state, run.job.objective));
      }
      const coordinator = new Coordinator({
        ...(await coordinatorOptions(run, resume, bus, () => opened?.deviceKind)),
        door: workers,
      });
      opened = coordinator;
      const { controlAddress } = await coordinator.start();
      if (failure !== undefined) coordinator.fail(failure.error);
      if (resume !== undefined) {
        void workers.firstDevice().then(
          ({ deviceKind }) =>
            compareDevices(resume, deviceKind, {
              fail: (error) => hasOwnWorkers && coordinator.fail(error),
              isRefused: run.config.deterministic,
              bus,
            }),
          () => {},
        );
      }
      return {
        coordinator,
        controlAddress,
        numParameters: run.job.layout.numElements,
        run: async () => finish(run, resume, push, coordinator, bus),
      };
    },
  };
}

async function finish(
  run: StartedRun,
  resume: ResumePoint | undefined,
  push: PushResult | undefined,
  coordinator: Coordinator,
  bus: InProcessEventBus,
): Promise<RunOutcome> {
  const outcome = await coordinator.run();
  // A run that made no step saved nothing: its weights are still those that it started from.
  let directory =
    outcome.step > (resume?.state.step ?? 0)
      ? join(run.config.output_dir, checkpointName(outcome.step))
      : (resume?.directory ?? run.modelDirectory);
  if (outcome.outcome === "finished") {
    bus.publish({
      type: "phase.changed",
      phase: "saving",
      detail: await savingDetail(run, outcome),
    });
    const startedAt = performance.now();
    const saved = await saveFinalModel(run, outcome.snapshot, outcome.state);
    const seconds = (performance.now() - startedAt) / 1000;
    directory = saved.directory;
    bus.publish({ type: "checkpoint.saved", step: outcome.step, seconds, ...saved });
  }
  const tell = (detail: string): void =>
    bus.publish({ type: "phase.changed", phase: "saving", detail });
  if (outcome.outcome === "interrupted" && push !== undefined) {
    tell("nothing is pushed to the hub, since the run is not finished");
  }
  const pushed =
    outcome.outcome === "finished" && push !== undefined
      ? await attempt(() => push(tell))
      : undefined;
  if (pushed?.value !== undefined) tell(`pushed to ${pushed.value}`);
  // What was not pushed is left to do, and so is an evaluation at the end that a signal cut short.
  const isWhole =
    outcome.step === resume?.state.step ||
    outcome.state.logHistory.some((entry) => entry.step === outcome.step && "train_loss" in entry);
  if (outcome.outcome === "finished" && pushed?.error === undefined && isWhole) {
    const marked = await attempt(() => markFinished(run, outcome.step));
    if (marked.error !== undefined) tell(`not marked as finished: ${messageOf(marked.error)}`);
  }
  bus.publish({
    type: "run.completed",
    outcome: outcome.outcome,
    step: outcome.step,
    directory,
    mastersSha256: outcome.mastersSha256,
    seconds: outcome.seconds,
  });
  // The result is there all the same, and was told of.
  if (pushed?.error !== undefined) throw pushed.error;
  return outcome;
}

async function attempt<T>(
  action: () => Promise<T>,
): Promise<{ readonly value?: T; readonly error?: unknown }> {
  try {
    return { value: await action() };
  } catch (error) {
    return { error };
  }
}

async function savingDetail(run: StartedRun, { state }: RunOutcome): Promise<string> {
  if (!run.config.load_best_model_at_end) return "writing the model";
  if (state.best === undefined) {
    return "writing the last model: no evaluation tells which is the best (load_best_model_at_end)";
  }
  const { step } = state.best;
  return (await bestCheckpoint(run, state)) === undefined
    ? `writing the last model: the best one, that of step ${step}, is not in ${run.config.output_dir}`
    : `writing the best model, that of step ${step}`;
}

async function startHttp(
  config: ResolvedConfig,
  bus: InProcessEventBus,
  isReady: () => boolean,
): Promise<{ server: CoordinatorHttp; address: string } | undefined> {
  if (config.metrics_port === null) return undefined;
  const token = await readToken(config.http_token_file);
  const server = new CoordinatorHttp({
    host: config.metrics_host,
    port: config.metrics_port,
    registry: new CoordinatorMetrics(bus).registry,
    isReady,
    bus,
    insecure: config.insecure,
    ...(token === undefined ? {} : { token }),
  });
  const port = await server.listen();
  const host = config.metrics_host.includes(":") ? `[${config.metrics_host}]` : config.metrics_host;
  return { server, address: `http://${host}:${port}` };
}

/** A token is a line; a larger file is the wrong file. */
const maxTokenBytes = 1 << 20;

/** @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE */
export async function readToken(file: string | null): Promise<string | undefined> {
  if (file === null) return undefined;
  const limits = { what: "HTTP token", limitBytes: maxTokenBytes };
  return (await readRegularFile(file, limits)).toString("utf8").trim();
}

/** Tells the bus of a failure; its code where it has one. */
export function publishFailure(bus: InProcessEventBus, error: unknown): void {
  bus.publish({
    type: "run.failed",
    code: isLockstepError(error) ? error.code : "E_UNEXPECTED",
    message: messageOf(error),
  });
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
