import { counted } from "#lib/core/format";
import { type ConfigKey, defaultOf, type ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { same } from "./show.js";

/** Keys that a command acts on, where others leave them something to do. */
interface IdleKeys {
  readonly keys: readonly ConfigKey[];
  /** Why they have no effect; undefined: they have one. */
  readonly reason: (config: ParsedConfig) => string | undefined;
}

const idleKeys: readonly IdleKeys[] = [
  {
    keys: ["reducer_shards"],
    reason: ({ reducers, reducer_processes, reducer_replicas }) => {
      const [key, numReducers] =
        reducers === null
          ? (["reducer_processes", reducer_processes] as const)
          : (["reducers", reducers.length] as const);
      if (numReducers === 0) return undefined;
      const copies = reducer_replicas === 1 ? "" : ` of ${reducer_replicas} copies`;
      const shards = counted(numReducers / reducer_replicas, "shard");
      return `it is the number of threads; ${key} makes ${shards}${copies}`;
    },
  },
  {
    keys: ["reducer_timeout_ms"],
    reason: ({ reducers, reducer_processes }) =>
      reducers === null && reducer_processes === 0
        ? "shards are threads of the coordinator: neither reducers nor reducer_processes is set"
        : undefined,
  },
  {
    keys: ["reducer_compare_steps"],
    reason: ({ reducer_replicas }) =>
      reducer_replicas === 1
        ? "each shard has one copy, and nothing to compare it with (reducer_replicas: 2)"
        : undefined,
  },
  {
    keys: [
      ...(["metrics_host", "http_token_file", "http_tls_cert_file"] as const),
      ...(["http_tls_key_file", "http_without_tls"] as const),
    ],
    reason: ({ metrics_port }) =>
      metrics_port === null
        ? "metrics_port: null switches metrics and the dashboard off"
        : undefined,
  },
];

/** Tells of keys that somebody set and that have no effect beside others; the result is the same without them. */
export function tellIdle(
  config: ParsedConfig,
  given: ReadonlyMap<ConfigKey, Pick<SourcedValue, "where">>,
  told: ReadonlySet<string>,
  warnings: string[],
): void {
  for (const { keys, reason } of idleKeys) {
    const why = reason(config);
    if (why === undefined) continue;
    for (const key of keys) {
      const sourced = given.get(key);
      if (sourced === undefined || told.has(key) || same(config[key], defaultOf(key))) continue;
      warnings.push(`${sourced.where}: ${key} has no effect: ${why}`);
    }
  }
}
