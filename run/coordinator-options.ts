import type { CoordinatorOptions } from "#coordinator/options";
import { intervalSteps, type ResolvedConfig } from "#lib/config/index";
import { splitAddress } from "#lib/core/address";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { loadWireSecurity, type WireSecurity } from "#lib/wire/security";
import { evaluationRules, evaluationSteps } from "./evaluation-rules.js";
import { jobIdOf } from "./recovered-run.js";
import type { ResumePoint } from "./resume.js";
import { saveCheckpoint } from "./files.js";
import { countsTokens, flosPerToken } from "./results.js";
import type { StartedRun } from "./start.js";

/** @param onWarning as of {@link loadWireSecurity} */
export const wireSecurity = async (
  config: ResolvedConfig,
  onWarning: (line: string) => void,
): Promise<WireSecurity> =>
  loadWireSecurity(
    {
      joinTokenFile: config.join_token_file ?? undefined,
      tlsCaFile: config.tls_ca_file ?? undefined,
      tlsCertFile: config.tls_cert_file ?? undefined,
      tlsKeyFile: config.tls_key_file ?? undefined,
      insecure: config.insecure,
    },
    onWarning,
  );

/** A prepared run in the coordinator's terms. */
export async function coordinatorOptions(
  run: StartedRun,
  resume: ResumePoint | undefined,
  bus: InProcessEventBus,
  deviceKind: () => string | undefined,
): Promise<CoordinatorOptions> {
  const { config, parameters, plan } = run;
  return {
    job: { ...run.job, jobId: jobIdOf(run) },
    bus,
    runId: run.record.runId,
    directory: run.config.output_dir,
    verifyGroups: config.verify_groups,
    mayTakeOver: config.standby,
    fingerprintSteps: config.fingerprint_steps,
    // What there is to warn of was told when the door was opened.
    security: await wireSecurity(config, () => {}),
    ...addresses(config),
    numShards: config.reducer_shards,
    gradientGroups: config.gradient_groups,
    plannedWorkers: config.workers,
    minWorkers: config.min_workers,
    maxWorkers: config.max_workers ?? undefined,
    plan,
    loadMasters:
      resume === undefined
        ? parameters.loadMasters
        : (range, into) => resume.optimizer.readMasters(range, into),
    loadFrozen: parameters.loadFrozen,
    updates: run.updates,
    fisher: run.fisher,
    ...evaluationOf(run),
    ...generalOf(run),
    ...generationOf(run),
    checkpointing: {
      everySteps: interval(run, "save"),
      // A best evaluation between two saves would have no weights to be loaded.
      whenBest: config.save_strategy === "best" || config.load_best_model_at_end,
      // As the Trainer: a longer run goes on from the end of this one.
      atEnd: config.save_strategy === "steps" || config.save_strategy === "epoch",
      save: (snapshot, state, tensorStates, onRead) =>
        saveCheckpoint(run, snapshot, state, { tensorStates, deviceKind: deviceKind(), onRead }),
      retryMs: config.save_retry_ms,
    },
    ...historyOf(run),
    heartbeatIntervalMs: config.heartbeat_interval_ms,
    heartbeatTimeoutMs: config.heartbeat_timeout_ms,
    leaseTimeoutMs: config.lease_timeout_ms,
    ...resumedState(resume),
  };
}

/** Steps between two logs, evaluations or saves; 0 where none are asked for. */
const interval = ({ config, plan }: StartedRun, what: "logging" | "save"): number =>
  intervalSteps(config, what, plan.totalSteps, plan.stepsPerEpoch);

function addresses({
  listen,
  advertise_host,
}: ResolvedConfig): Pick<CoordinatorOptions, "listenHost" | "listenPort" | "advertiseHost"> {
  const { host, port } = splitAddress(listen);
  return {
    listenHost: host,
    listenPort: port,
    ...(advertise_host === null ? {} : { advertiseHost: advertise_host }),
  };
}

/** When and on what the model is evaluated; nothing where nothing is kept for it. */
function evaluationOf(run: StartedRun): Pick<CoordinatorOptions, "evaluation"> {
  const { config, data, plan } = run;
  if (data.validation.length === 0) return {};
  const { everySteps, delaySteps } = evaluationSteps(config, plan);
  return {
    evaluation: {
      batches: data.validation,
      atStart: config.eval_on_start,
      atEnd: config.eval_on_end,
      ...{ everySteps, delaySteps },
      numRows: data.numValidationRows,
      ...evaluationRules(config, run.job),
    },
  };
}

/** General rows that validate. */
function generalOf({ data }: StartedRun): Pick<CoordinatorOptions, "general"> {
  const { general } = data;
  if (general === undefined || general.validation.length === 0) return {};
  const numRows = general.dataset.validation?.report.numRows ?? 0;
  return { general: { batches: general.validation, numRows } };
}

/** What the model continues before and after training. */
function generationOf({ model, sample }: StartedRun): Pick<CoordinatorOptions, "generation"> {
  if (sample === undefined) return {};
  return {
    generation: {
      promptText: sample.promptText,
      isChat: sample.isChat,
      prompt: [...sample.prompt],
      maxNewTokens: sample.maxNewTokens,
      endTokenIds: sample.endTokenIds,
      decode: (tokens) => model.tokenizer.decode(tokens, { skipSpecialTokens: true }),
    },
  };
}

/** What the history holds. */
function historyOf(run: StartedRun) {
  const { config, plan } = run;
  return {
    loggingSteps: interval(run, "logging") || plan.totalSteps,
    logsFirstStep: config.logging_first_step,
    countsTokens: countsTokens(config),
    countsPadding: config.include_num_input_tokens_seen !== "non_padding",
    flosPerToken: flosPerToken(run),
  } satisfies Partial<CoordinatorOptions>;
}

function resumedState(resume: ResumePoint | undefined): Pick<CoordinatorOptions, "resume"> {
  if (resume === undefined) return {};
  return {
    resume: {
      state: resume.state,
      loadStates: async (range, states) => resume.optimizer.readStates(range, states),
      loadTensorStates: async (states) => resume.optimizer.readTensorStates(states),
    },
  };
}
