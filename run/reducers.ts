import { mkdir } from "node:fs/promises";
import type { ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { hostPort, splitAddress } from "#lib/core/address";
import type { EventBus } from "#lib/wire/event-bus";
import { logDirectoryOf, Supervisor, type WorkerExit } from "./supervisor.js";
import { addressHere } from "./worker-addresses.js";

/** The message of a reducer to its supervisor. */
export interface ReducerMessage {
  readonly type: "listening";
  /** host:port at which coordinator and workers call it. */
  readonly address: string;
  /** host:port of its metrics; null: it has none. */
  readonly metrics: string | null;
}

/** A process that says nothing for so long has not started. */
const startTimeoutMs = 60_000;
/** One that was lost after so long failed at something else than its start. */
const steadyMs = 60_000;

/** Processes of shards that a run started on this machine. */
interface OwnReducers {
  /** host:port of each, which it keeps when it is started again. */
  readonly addresses: readonly string[];
  /** Ends them, and waits until they have. */
  readonly stop: () => Promise<void>;
  readonly killAll: () => void;
}

/** Starts the reducers of a configuration. */
export type StartReducers = (
  config: ResolvedConfig,
  options: {
    /** A line for a person. */
    readonly note: (text: string) => void;
  },
) => Promise<OwnReducers>;

/** The processes of a run's shards, where it has some. */
export class RunReducers {
  readonly #config: ResolvedConfig;
  readonly #start: StartReducers | undefined;
  #own: OwnReducers | undefined;

  /** @param start what starts those that the configuration asks for; absent: it asks for none */
  constructor(config: ResolvedConfig, start: StartReducers | undefined) {
    this.#config = config;
    this.#start = start;
  }

  /** host:port of each, in the order of the shards; undefined: shards are threads. Its own are started once. */
  async addresses(bus: EventBus): Promise<readonly string[] | undefined> {
    const { reducers, reducer_processes } = this.#config;
    if (reducers !== null) return reducers;
    if (reducer_processes === 0) return undefined;
    const note = (text: string): void => bus.publish({ type: "note", text });
    this.#own ??= await this.#start?.(this.#config, { note });
    return this.#own?.addresses;
  }

  async stop(): Promise<void> {
    await this.#own?.stop();
  }

  killAll(): void {
    this.#own?.killAll();
  }
}

/**
 * Starts `reducer_processes` on this machine, and one that ends again at its address.
 *
 * @throws E_PROCESS_START where one does not listen in time
 */
export const startReducers: StartReducers = async (config, { note }) => {
  const { reducer_processes: numReducers, output_dir, listen } = config;
  const addresses: string[] = [];
  const { host, port } = splitAddress(listen);
  let settle = (): void => {};
  let refuse = (_error: unknown): void => {};
  const listening = new Promise<void>((resolve, reject) => {
    settle = resolve;
    refuse = reject;
  });
  const fail = (problem: string): void =>
    refuse(new LockstepError("E_PROCESS_START", { program: "a reducer", problem }));
  const logDirectory = logDirectoryOf(output_dir);
  await mkdir(logDirectory, { recursive: true });
  const supervisor = new Supervisor({
    numWorkers: numReducers,
    role: "reducer",
    workerArgs: reducerArguments(config),
    ownArgs: (index) => [
      "--listen",
      addresses[index] ?? hostPort(host, port === 0 ? 0 : port + 1 + index),
    ],
    environment: () => ({}),
    logDirectory,
    maxRestarts: config.max_worker_restarts,
    steadyMs,
    onExit: (exit) => {
      note(exitLine(exit));
      if (addresses.filter(Boolean).length < numReducers) fail(exitLine(exit));
    },
    onMessage: (index, message) => {
      const sent = message as ReducerMessage;
      if (sent.type !== "listening") return;
      addresses[index] = sent.address;
      if (addresses.filter(Boolean).length === numReducers) settle();
    },
    onLogFailure: (logFile) => note(`warning: ${logFile} is not written`),
    onExhausted: () => {},
  });
  supervisor.start();
  const timer = setTimeout(() => fail(`it does not listen; see ${logDirectory}`), startTimeoutMs);
  try {
    await listening;
  } catch (error) {
    supervisor.killAll();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return {
    // They may listen at all addresses of this machine, at which nobody can be called.
    addresses: addresses.map((address) => addressHere(config, splitAddress(address).port)),
    stop: async () => supervisor.stop(),
    killAll: () => supervisor.killAll(),
  };
};

const exitLine = ({ index, reason, logFile, restartInMs }: WorkerExit): string =>
  `reducer-${index + 1} ended (${reason}); ${
    restartInMs === undefined
      ? "it is not started again"
      : `it is started again in ${restartInMs / 1000} s`
  }. Its log is ${logFile}`;

function reducerArguments(config: ResolvedConfig): string[] {
  const files: [string, string | null][] = [
    ["--tls-cert-file", config.tls_cert_file],
    ["--tls-key-file", config.tls_key_file],
    ["--tls-ca-file", config.tls_ca_file],
    ["--join-token-file", config.join_token_file],
    ["--http-token-file", config.http_token_file],
  ];
  return [
    ...["--metrics-port", config.metrics_port === null ? "null" : "0"],
    // The run that started them ends them.
    ...["--idle-timeout-ms", "0"],
    ...(config.insecure ? ["--insecure"] : []),
    ...files.flatMap(([flag, value]) => (value === null ? [] : [flag, value])),
  ];
}
