import { LockstepError } from "#lib/core/errors/index";
import { metricScheduleNames } from "#lib/optim/metric-schedules";
import { type ConfigKey, defaultOf, type ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { givenPlaces } from "./given-keys.js";
import type { ResolvedConfig } from "./resolve.js";
import { same, show } from "./show.js";

/** Commands that act on a configuration. */
export const configCommands = ["train", "coordinator", "train-local"] as const;
export type ConfigCommand = (typeof configCommands)[number];

/** What becomes of a key that a command does not act on. */
interface UnreadKey {
  /** `refused`: what it asks for would be left undone. `told`: nothing of the result depends on it. */
  readonly kind: "refused" | "told";
  readonly reason: string;
  /** Values that ask for what the command does anyway; absent: the key's default. */
  readonly allowed?: readonly unknown[];
  /** Keys, and values of each beside which nothing is left undone; set: any but its default. */
  readonly unless?: readonly (readonly [ConfigKey, readonly unknown[] | "set"])[];
}

const noCheckpoints =
  "train-local saves the finished model and no checkpoints; `lockstep train` saves and resumes them";
const noBest =
  "train-local compares evaluations only for load_best_model_at_end, early_stopping_patience or a schedule that follows them; `lockstep train` marks the best checkpoint";
const noStandby = "only lockstep coordinator stands by for another one";
const oneProcess = "train-local is one process, without a server";
const noWorkers = "a coordinator starts no workers";

const refused = (reason: string, allowed?: readonly unknown[]): UnreadKey => ({
  kind: "refused",
  reason,
  ...(allowed === undefined ? {} : { allowed }),
});
const told = (reason: string, allowed?: readonly unknown[]): UnreadKey => ({
  ...refused(reason, allowed),
  kind: "told",
});
const unless = (
  key: ConfigKey,
  values: readonly unknown[] | "set",
  rule: UnreadKey,
): UnreadKey => ({
  ...rule,
  unless: [...(rule.unless ?? []), [key, values]],
});
const each = (keys: readonly ConfigKey[], rule: UnreadKey): Partial<Record<ConfigKey, UnreadKey>> =>
  Object.fromEntries(keys.map((key) => [key, rule]));

/** The keys that a command does not act on; every other key of the schema has a reader in it. */
export const unreadKeys: Readonly<
  Record<ConfigCommand, Readonly<Partial<Record<ConfigKey, UnreadKey>>>>
> = {
  train: { standby: refused(noStandby, [false]) },
  coordinator: {
    use_cpu: told(`${noWorkers}; each is told by lockstep worker --use-cpu`),
    engine_module: told(`${noWorkers}; each is told by lockstep worker --engine-module FILE`),
    max_worker_restarts: told(`${noWorkers}, and starts none again`),
    reducer_processes: refused(
      "a coordinator starts no processes: `lockstep reducer` does, and the key reducers names them",
    ),
  },
  "train-local": {
    resume_from_checkpoint: refused(noCheckpoints, [null, false]),
    save_strategy: refused(noCheckpoints, ["no"]),
    ...each(
      ["save_steps", "save_total_limit", "save_only_model"],
      unless("save_strategy", ["no"], refused(noCheckpoints)),
    ),
    ...each(
      ["metric_for_best_model", "greater_is_better"],
      unless(
        "load_best_model_at_end",
        "set",
        unless(
          "early_stopping_patience",
          "set",
          unless("lr_scheduler_type", metricScheduleNames, refused(noBest)),
        ),
      ),
    ),
    ...each(
      ["logging_strategy", "logging_first_step", "include_num_input_tokens_seen"],
      told("train-local logs every step, without token counts"),
    ),
    logging_steps: told("train-local logs every step", [1]),
    disable_tqdm: told("train-local prints plain lines", [null, true]),
    ...each(
      [
        ...(["reducers", "reducer_processes", "reducer_timeout_ms"] as const),
        ...(["reducer_replicas", "reducer_compare_steps"] as const),
      ],
      told(`${oneProcess}; the bits are the same wherever shards are`),
    ),
    standby: refused(noStandby, [false]),
    ...each(["checkpoint_store", "s3_endpoint", "s3_region"], refused(noCheckpoints)),
    reducer_shards: told(`${oneProcess}; the bits are the same for any number of shards`),
    metrics_port: told(oneProcess, [null, 0]),
    ...each(
      [
        "listen",
        "advertise_host",
        "metrics_host",
        "insecure",
        "http_token_file",
        "http_tls_cert_file",
        "http_tls_key_file",
        "http_without_tls",
        "join_token_file",
        "nats_url",
        "nats_credentials_file",
        "nats_token_file",
        "nats_tls_ca_file",
        "nats_tls_cert_file",
        "nats_tls_key_file",
        "nats_lease",
        "nats_events_max_age_days",
        "nats_events_max_gb",
      ],
      told(oneProcess),
    ),
    ...each(["tls_cert_file", "tls_key_file", "tls_ca_file"], told(oneProcess)),
    ...each(
      [
        "heartbeat_interval_ms",
        "heartbeat_timeout_ms",
        "lease_timeout_ms",
        "max_worker_restarts",
        "min_workers",
        "max_workers",
        "max_rollbacks",
        "verify_groups",
        "fingerprint_steps",
      ],
      told(`${oneProcess} and without workers`),
    ),
    deterministic: told(`${oneProcess} and without workers`),
  },
};

/**
 * Refuses what a command would print and leave undone, all of it in one message, and tells of keys
 * without effect in it. What a tool's defaults add is told of only: nobody wrote it.
 *
 * @throws E_CONFIG_UNSUPPORTED
 */
export function refuseUnread(
  command: ConfigCommand,
  config: Pick<ParsedConfig, "save_strategy"> & Readonly<Partial<Record<ConfigKey, unknown>>>,
  given: ReadonlyMap<ConfigKey, Pick<SourcedValue, "where">>,
  warnings: string[],
): void {
  const undone: { key: ConfigKey; value: string; where: string; reason: string }[] = [];
  for (const [name, rule] of Object.entries(unreadKeys[command])) {
    const key = name as ConfigKey;
    const sourced = given.get(key);
    if (sourced === undefined) continue;
    const value = config[key];
    const allowed = rule.allowed ?? [defaultOf(key)];
    if (allowed.some((one) => same(one, value))) continue;
    const isDone = (rule.unless ?? []).some(([beside, values]) =>
      values === "set"
        ? !same(config[beside], defaultOf(beside))
        : values.some((one) => same(config[beside], one)),
    );
    if (isDone) continue;
    const { where } = sourced;
    if (rule.kind === "told" || where.startsWith("default of ")) {
      warnings.push(`${where}: ${key} has no effect: ${rule.reason}`);
    } else {
      undone.push({ key, value: show(value), where, reason: rule.reason });
    }
  }
  const [first, ...others] = undone;
  if (first === undefined) return;
  const also =
    others.length === 0
      ? ""
      : `; nor is anything done for ${others.map(({ key, where }) => `${key} (${where})`).join(", ")}`;
  throw new LockstepError("E_CONFIG_UNSUPPORTED", { ...first, reason: `${first.reason}${also}` });
}

/**
 * The same for a configuration that was resolved for whatever command; what it has without effect changes
 * nothing of the result.
 *
 * @throws E_CONFIG_UNSUPPORTED
 */
export function checkKeysAreRead(config: ResolvedConfig, command: ConfigCommand): void {
  refuseUnread(command, config, givenPlaces(config), []);
}
