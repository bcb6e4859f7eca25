import { randomUUID } from "node:crypto";
import type { CoordinatorOptions } from "#coordinator/options";
import { evaluationDelaySteps, intervalSteps, type ResolvedConfig } from "#lib/config/index";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { loadWireSecurity, type WireSecurity } from "#lib/wire/security";
import { objectiveOf } from "#lib/objectives/index";
import { bestMetric } from "./objective.js";
import type { ResumePoint } from "./resume.js";
import { saveCheckpoint } from "./files.js";
import { countsTokens, flosPerToken, tracksBest } from "./results.js";
import type { StartedRun } from "./start.js";

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

/** A prepared run in the coordinator's terms. */
export async function coordinatorOptions(
  run: StartedRun,
  resume: ResumePoint | undefined,
  bus: InProcessEventBus,
  deviceKind: () => string | undefined,
): Promise<CoordinatorOptions> {
  const { config, plan, sample, tokenizer } = run;
  const interval = (what: "logging" | "eval" | "save"): number =>
    intervalSteps(config, what, plan.totalSteps, plan.stepsPerEpoch);
  const { host, port } = splitAddress(config.listen);
  const best = bestMetric(config, objectiveOf(run.job.objective.kind));
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
        : (range, into) => resume.optimizer.readMasters(range, into),
    loadFrozen: run.loadFrozen,
    updates: run.updates,
    ...(run.validation.length === 0
      ? {}
      : {
          evaluation: {
            batches: run.validation,
            atStart: config.eval_on_start,
            atEnd: config.eval_on_end,
            everySteps: interval("eval"),
            delaySteps: evaluationDelaySteps(config, plan.stepsPerEpoch),
            numRows: run.validationReport?.numRows ?? 0,
            ...(tracksBest(config)
              ? {
                  best: {
                    metric: best?.key ?? "loss",
                    greaterIsBetter: config.greater_is_better ?? best?.greaterIsBetter ?? false,
                  },
                }
              : {}),
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
      // As the Trainer: a longer run goes on from the end of this one.
      atEnd: config.save_strategy === "steps" || config.save_strategy === "epoch",
      save: (snapshot, state) => saveCheckpoint(run, snapshot, state, deviceKind()),
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
            deviceKind: resume.record.deviceKind,
            loadStates: async (range, states) => resume.optimizer.readStates(range, states),
          },
        }),
  };
}
