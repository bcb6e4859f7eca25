import { isHost, isLoopback, isWildcard, splitAddress } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { checkRates, checkUnfreezing } from "#lib/parameters/index";
import type { ConfigCommand } from "./command-keys.js";
import { defaultOf, type ParsedConfig } from "./fields.js";
import { checkGeneral } from "./general-fields.js";
import { followsMetric } from "./schedule-names.js";
import { isMultiple, parseSizeBytes } from "./steps.js";

/** Rules over several keys that do not depend on the data. @throws E_CONFIG_CONFLICT, E_CONFIG_UNSUPPORTED */
export function checkTogether(config: ParsedConfig, command?: ConfigCommand): void {
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  const unsupported = (key: string, value: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_UNSUPPORTED", { key, value, reason, where: "" });
  };
  if (config.fp16 === true && config.bf16 === true) {
    conflict("fp16 and bf16", "only one of them can be true");
  }
  if (followsMetric(config) && config.eval_strategy === "no") {
    const reason = `${config.lr_scheduler_type} follows a metric of evaluations, and there are none`;
    conflict("lr_scheduler_type and eval_strategy", reason);
  }
  const { dropout } = config;
  const rates = typeof dropout === "number" ? [dropout] : Object.values(dropout ?? {});
  if (config.disable_dropout === true && rates.some((rate) => rate > 0)) {
    conflict("disable_dropout and dropout", "one says that nothing is dropped, the other what is");
  }
  checkGeneral(config, defaultOf, conflict);
  checkRates(config);
  checkUnfreezing(config);
  checkPrecision(config);
  const { workers, min_workers, max_workers } = config;
  if (min_workers > workers) {
    conflict(
      "min_workers and workers",
      `the run is planned for workers: ${workers}, and would not begin with these; min_workers must be ${workers} at most`,
    );
  }
  if (max_workers !== null && max_workers < workers) {
    conflict(
      "max_workers and workers",
      `the run is planned for workers: ${workers}, of which some would never get a place; max_workers must be ${workers} at least`,
    );
  }
  if (config.standby && config.overwrite_output_dir) {
    conflict(
      "standby and overwrite_output_dir",
      "one that stands by goes on with the run that is there, and does not replace it",
    );
  }
  if (config.heartbeat_timeout_ms < 2 * config.heartbeat_interval_ms) {
    conflict(
      "heartbeat_timeout_ms and heartbeat_interval_ms",
      `one late heartbeat of ${config.heartbeat_interval_ms} ms would count as a death`,
    );
  }
  checkReducers(config, conflict);
  checkStore(config, conflict);
  if (config.max_steps === 0) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "max_steps",
      expected: "-1, or a whole number of at least 1",
      got: "0",
      where: "",
    });
  }
  if (parseSizeBytes(config.max_shard_size) === undefined) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "max_shard_size",
      expected: "a number of bytes, or text such as 5GB or 500MiB",
      got: JSON.stringify(config.max_shard_size),
      where: "",
    });
  }
  checkBestModel(config, command);
  checkEarlyStopping(config);
  if (config.push_to_hub && config.hub_strategy !== "end") {
    const reason = "the result is pushed once, at the end (hub_strategy: end)";
    unsupported("hub_strategy", config.hub_strategy, reason);
  }
  if (/^(ONLINE$|REMOTE:)/.test(config.dataset_dir)) {
    unsupported(
      "dataset_dir",
      JSON.stringify(config.dataset_dir),
      "Lockstep does not download data from a hub; name a directory of this machine",
    );
  }
  const tls = [config.tls_cert_file, config.tls_key_file, config.tls_ca_file];
  if (tls.some((file) => file !== null) && tls.some((file) => file === null)) {
    conflict("tls_cert_file, tls_key_file and tls_ca_file", "mutual TLS needs all three files");
  }
  if ((config.http_tls_cert_file === null) !== (config.http_tls_key_file === null)) {
    conflict("http_tls_cert_file and http_tls_key_file", "a certificate needs its key");
  }
  checkNats(config, conflict);
  if (!/^(\[[0-9a-fA-F:]+\]|[^:]+):\d{1,5}$/.test(config.listen)) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "listen",
      expected: "HOST:PORT",
      got: JSON.stringify(config.listen),
      where: "",
    });
  }
  checkAdvertisedHost(config);
}

/** What leads to a server that nothing is asked of would be left undone in silence. */
function checkNats(config: ParsedConfig, conflict: (keys: string, reason: string) => never): void {
  if ((config.nats_tls_cert_file === null) !== (config.nats_tls_key_file === null)) {
    conflict("nats_tls_cert_file and nats_tls_key_file", "a certificate needs its key");
  }
  if (config.nats_credentials_file !== null && config.nats_token_file !== null) {
    conflict("nats_credentials_file and nats_token_file", "a client shows one of them");
  }
  if (config.nats_url !== null) return;
  const given = [
    "nats_credentials_file",
    "nats_token_file",
    "nats_tls_ca_file",
    "nats_tls_cert_file",
    "nats_lease",
    "nats_events_max_age_days",
    "nats_events_max_gb",
  ] as const;
  const [key] = given.filter((each) => config[each] !== null);
  if (key !== undefined) conflict(`${key} and nats_url`, "without nats_url there is no server");
}

/** Workers call the host that is advertised: it has to be one that they can call. */
function checkAdvertisedHost({ listen, advertise_host: advertised }: ParsedConfig): void {
  if (advertised === null) return;
  if (!isHost(advertised) || isWildcard(advertised)) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "advertise_host",
      expected:
        "a name or an address at which workers call this machine, without a scheme or a port",
      got: JSON.stringify(advertised),
      where: "",
    });
  }
  const { host } = splitAddress(listen);
  if (isLoopback(advertised) && !isLoopback(host)) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "listen and advertise_host",
      reason: `workers of other machines would look for ${advertised} on their own; without advertise_host they call the shards as they called the coordinator`,
    });
  }
}

/**
 * Weights may not travel in a half type that they are not computed in, as far as that is decided.
 *
 * @throws E_CONFIG_CONFLICT
 */
export function checkPrecision(config: Pick<ParsedConfig, "wire_dtype" | "bf16" | "fp16">): void {
  const { wire_dtype } = config;
  if (wire_dtype === null || wire_dtype === "float32") return;
  const key = wire_dtype === "bfloat16" ? "bf16" : "fp16";
  if (config[key] !== false) return;
  const runs = config.bf16 === true ? "bfloat16" : config.fp16 === true ? "float16" : "float32";
  const loss =
    wire_dtype === "bfloat16" ? "lose digits" : "overflow, without a loss scale that heeds it,";
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: `wire_dtype and ${key}`,
    reason: `a ${runs} run would ${loss} on the wire`,
  });
}

/** @throws E_CONFIG_CONFLICT */
function checkEarlyStopping(config: ParsedConfig): void {
  const { early_stopping_patience: patience, early_stopping_threshold: threshold } = config;
  if (patience === null && threshold !== 0) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "early_stopping_threshold and early_stopping_patience",
      reason:
        "without a patience no evaluation ends the run, and nothing is compared by a threshold",
    });
  }
  if (patience !== null && config.eval_strategy === "no") {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "early_stopping_patience and eval_strategy",
      reason: "evaluations end the run, and there are none: eval_strategy has to be steps or epoch",
    });
  }
}

/** transformers' rules for the best checkpoint. @throws E_CONFIG_CONFLICT */
function checkBestModel(config: ParsedConfig, command: ConfigCommand | undefined): void {
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  const { eval_strategy, save_strategy, save_steps, load_best_model_at_end } = config;
  const eval_steps = config.eval_steps ?? config.logging_steps;
  if (save_strategy === "best" && eval_strategy === "no") {
    conflict("save_strategy and eval_strategy", "without evaluations there is no best checkpoint");
  }
  if (!load_best_model_at_end) return;
  if (eval_strategy === "no") {
    conflict("load_best_model_at_end and eval_strategy", "without evaluations there is no best");
  }
  // It keeps the weights of the best evaluation itself.
  if (command === "train-local") return;
  if (save_strategy !== "best" && eval_strategy !== save_strategy) {
    const reason = `every evaluation needs its checkpoint, so eval_strategy (${eval_strategy}) and save_strategy (${save_strategy}) have to be the same`;
    conflict("load_best_model_at_end, eval_strategy and save_strategy", reason);
  }
  if (save_strategy === "steps" && !isMultiple(save_steps, eval_steps)) {
    const reason = `a checkpoint is compared by its own evaluation, and save_steps ${save_steps} is not a multiple of eval_steps ${eval_steps}`;
    conflict("load_best_model_at_end, save_steps and eval_steps", reason);
  }
}

/** What leads to a store that nothing is asked of would be left undone in silence. */
function checkStore(
  { checkpoint_store, resume_from_checkpoint: from, ...config }: ParsedConfig,
  conflict: (keys: string, reason: string) => never,
): void {
  const isFromStore = typeof from === "string" && from.startsWith("s3://");
  if (checkpoint_store !== null || isFromStore) return;
  const [key] = (["s3_endpoint", "s3_region"] as const).filter((each) => config[each] !== null);
  if (key === undefined) return;
  conflict(`${key} and checkpoint_store`, "without checkpoint_store nothing is kept in a store");
}

/** @throws E_CONFIG_CONFLICT */
function checkReducers(
  { reducers, reducer_processes, reducer_replicas }: ParsedConfig,
  conflict: (keys: string, reason: string) => never,
): void {
  const numReducers = reducers?.length ?? reducer_processes;
  if (reducer_replicas > 1 && (numReducers === 0 || numReducers % reducer_replicas !== 0)) {
    const keys = `reducer_replicas and ${reducers === null ? "reducer_processes" : "reducers"}`;
    const reason =
      numReducers === 0
        ? "threads of the coordinator end with it, so a second copy there is of no use: name reducers, or let reducer_processes start them"
        : `${reducer_replicas} copies of each shard take an even number of reducers, not ${numReducers}`;
    conflict(keys, reason);
  }
  if (reducers === null) return;
  if (reducer_processes > 0) {
    conflict("reducers and reducer_processes", "the processes are there already, or are started");
  }
  const twice = reducers.find((address, index) => reducers.indexOf(address) !== index);
  if (twice !== undefined) {
    conflict("reducers", `a process has one shard, and ${twice} is named twice`);
  }
}
