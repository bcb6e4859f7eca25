import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Coordinator, hostPort } from "#coordinator/coordinator";
import { FrontDoor } from "#coordinator/front-door";
import { CoordinatorHttp } from "#coordinator/http";
import { CoordinatorMetrics } from "#coordinator/metrics";
import type { CoordinatorOptions, RunOutcome } from "#coordinator/options";
import { resumedEvent } from "#coordinator/resumed-event";
import { checkpointName } from "#lib/checkpoint/index";
import { evaluationDelaySteps, intervalSteps, type ResolvedConfig } from "#lib/core/config/index";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { loadWireSecurity, type WireSecurity } from "#lib/wire/security";
import { forgetFinished, markFinished } from "./finished-run.js";
import { claimOutputDirectory } from "./output-directory.js";
import { type PreparedRun, prepareRun } from "./prepare.js";
import { bestMetric } from "./classifier.js";
import { pushOf, type PushResult } from "./push.js";
import { countsTokens, flosPerToken, tracksBest } from "./run-results.js";
import { type TrainerLog, writeTrainerLog } from "./trainer-log.js";
import {
  openResumePoint,
  resumedPrecision,
  type ResumePoint,
  saveCheckpoint,
  saveConfig,
  saveFinalModel,
} from "./run-files.js";

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
  readonly open: () => Promise<HostedRun>;
  /** Ends the run with this error, wherever it is. */
  readonly fail: (error: unknown) => void;
  readonly close: () => Promise<void>;
}

/** Starts the HTTP server, so that every later phase can be watched. */
export async function startHost(config: ResolvedConfig, bus: InProcessEventBus): Promise<Host> {
  let isReady = false;
  let prepared: PreparedRun | undefined;
  let resume: ResumePoint | undefined;
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
    await resume?.optimizer.close();
    await releaseOutput?.();
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
      push = await pushOf(config);
      releaseOutput = await claimOutputDirectory(config.output_dir);
      const { host, port } = splitAddress(config.listen);
      const security = await wireSecurity(config);
      door = await FrontDoor.open({ bus, security, listenHost: host, listenPort: port });
      // From now on workers are answered; one of them may have to come before the run can be opened.
      isReady = true;
      return hostPort(config.advertise_host ?? host, door.port);
    },
    open: async () => {
      if (door === undefined) throw new Error("Host.listen() has not been called");
      const workers = door;
      const detail = (text: string): void =>
        bus.publish({ type: "phase.changed", phase: "preparing", detail: text });
      resume = await openResumePoint(config);
      const checkpoint = resume;
      prepared = await prepareRun(config, {
        onDetail: detail,
        choosePrecision: async () => {
          if (checkpoint !== undefined) return resumedPrecision(checkpoint);
          detail("waiting for the first worker, whose device decides bf16: auto");
          const { advisesBf16, deviceKind } = await workers.firstDevice();
          return { bf16: advisesBf16, reason: deviceKind };
        },
      });
      const run = prepared;
      await saveConfig(run.config);
      await forgetFinished(config.output_dir);
      trainerLog = await writeTrainerLog(config.output_dir, bus, resume?.state.logHistory ?? []);
      bus.publish(run.started);
      if (resume !== undefined) bus.publish(resumedEvent(resume.directory, resume.state));
      const coordinator = new Coordinator({
        ...(await coordinatorOptions(run, resume, bus)),
        door: workers,
      });
      opened = coordinator;
      const { controlAddress } = await coordinator.start();
      if (failure !== undefined) coordinator.fail(failure.error);
      return {
        coordinator,
        controlAddress,
        numParameters: run.job.layout.numElements,
        run: async () => finish(run, resume, push, coordinator, bus, config),
      };
    },
  };
}

async function finish(
  run: PreparedRun,
  resume: ResumePoint | undefined,
  push: PushResult | undefined,
  coordinator: Coordinator,
  bus: InProcessEventBus,
  asked: ResolvedConfig,
): Promise<RunOutcome> {
  const outcome = await coordinator.run();
  // A run that made no step saved nothing: its weights are still those that it started from.
  let directory =
    outcome.step > (resume?.state.step ?? 0)
      ? join(run.config.output_dir, checkpointName(outcome.step))
      : (resume?.directory ?? run.modelDirectory);
  if (outcome.outcome === "finished") {
    bus.publish({ type: "phase.changed", phase: "saving", detail: savingDetail(run, outcome) });
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
    const { totalSteps } = run.plan;
    await markFinished(asked, { step: outcome.step, totalSteps }).catch((error: unknown) =>
      tell(`not marked as finished: ${error instanceof Error ? error.message : String(error)}`),
    );
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

function savingDetail({ config }: PreparedRun, { state }: RunOutcome): string {
  return config.load_best_model_at_end && state.best !== undefined
    ? `writing the best model, that of step ${state.best.step}`
    : "writing the model";
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

/** @throws E_FILE_NOT_FOUND */
export async function readToken(file: string | null): Promise<string | undefined> {
  if (file === null) return undefined;
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (cause) {
    throw new LockstepError("E_FILE_NOT_FOUND", { file, what: "HTTP token" }, { cause });
  }
}

/** "127.0.0.1:0" or "[::1]:0" in its parts. */
export function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(":");
  return {
    host: address.slice(0, colon).replace(/^\[|\]$/g, ""),
    port: Number(address.slice(colon + 1)),
  };
}

export const wireSecurity = async (config: ResolvedConfig): Promise<WireSecurity> =>
  loadWireSecurity({
    joinTokenFile: config.join_token_file ?? undefined,
    tlsCaFile: config.tls_ca_file ?? undefined,
    tlsCertFile: config.tls_cert_file ?? undefined,
    tlsKeyFile: config.tls_key_file ?? undefined,
    insecure: config.insecure,
  });

async function coordinatorOptions(
  run: PreparedRun,
  resume: ResumePoint | undefined,
  bus: InProcessEventBus,
): Promise<CoordinatorOptions> {
  const { config, plan, sample, tokenizer } = run;
  const interval = (what: "logging" | "eval" | "save"): number =>
    intervalSteps(config, what, plan.totalSteps, plan.stepsPerEpoch);
  const { host, port } = splitAddress(config.listen);
  return {
    job: { ...run.job, jobId: randomUUID() },
    bus,
    security: await wireSecurity(config),
    listenHost: host,
    listenPort: port,
    ...(config.advertise_host === null ? {} : { advertiseHost: config.advertise_host }),
    numShards: config.reducer_shards,
    gradientGroups: config.gradient_groups,
    plannedWorkers: config.workers,
    plan,
    loadMasters:
      resume === undefined
        ? run.loadMasters
        : (range, into) => resume.optimizer.readRange("masters", range, into),
    loadFrozen: run.loadFrozen,
    optimizer: run.optimizer,
    ...(run.validation.length === 0
      ? {}
      : {
          evaluation: {
            batches: run.validation,
            atStart: config.eval_on_start,
            atEnd: config.eval_on_end,
            everySteps: interval("eval"),
            delaySteps: evaluationDelaySteps(config, plan.stepsPerEpoch),
            numSamples: run.validationReport?.numRows ?? 0,
            ...(tracksBest(config)
              ? {
                  best: {
                    metric: bestMetric(config),
                    greaterIsBetter: config.greater_is_better ?? bestMetric(config) !== "loss",
                  },
                }
              : {}),
            numClasses: run.labels?.length,
          },
        }),
    ...(sample === undefined
      ? {}
      : {
          generation: {
            promptText: sample.promptText,
            isChat: sample.isChat,
            prompt: [...sample.prompt],
            maxNewTokens: sample.maxNewTokens,
            endTokenIds: sample.endTokenIds,
            decode: (tokens) => tokenizer.decode(tokens, { skipSpecialTokens: true }),
          },
        }),
    checkpointing: {
      everySteps: interval("save"),
      whenBest: config.save_strategy === "best",
      // The last evaluation can be the best one, and only what is saved can be taken.
      atEnd: config.load_best_model_at_end && config.save_strategy !== "best",
      save: (snapshot, state) => saveCheckpoint(run, snapshot, state),
    },
    loggingSteps: interval("logging") || plan.totalSteps,
    logsFirstStep: config.logging_first_step,
    countsTokens: countsTokens(config),
    countsPadding: config.include_num_input_tokens_seen !== "non_padding",
    flosPerToken: flosPerToken(run),
    deterministic: config.deterministic,
    heartbeatIntervalMs: config.heartbeat_interval_ms,
    heartbeatTimeoutMs: config.heartbeat_timeout_ms,
    leaseTimeoutMs: config.lease_timeout_ms,
    ...(resume === undefined
      ? {}
      : {
          resume: {
            state: resume.state,
            loadMoments: async (range, firstMoment, secondMoment) => {
              await resume.optimizer.readRange("first_moment", range, firstMoment);
              await resume.optimizer.readRange("second_moment", range, secondMoment);
            },
          },
        }),
  };
}

/** Tells the bus of a failure; its code where it has one. */
export function publishFailure(bus: InProcessEventBus, error: unknown): void {
  bus.publish({
    type: "run.failed",
    code: isLockstepError(error) ? error.code : "E_UNEXPECTED",
    message: error instanceof Error ? error.message : String(error),
  });
}
