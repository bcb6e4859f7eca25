import {
  type Authenticator,
  connect,
  DebugEvents,
  ErrorCode,
  Events,
  type JetStreamClient,
  type JetStreamManager,
  type NatsConnection,
  NatsError,
  type TlsOptions,
} from "nats";
import { LockstepError } from "#lib/core/errors/index";
import { readRegularTextSync } from "#lib/core/regular-file";
import { warnOfReaders } from "#lib/core/secret-files";
import { readTlsFiles } from "#lib/core/tls-files";
import { natsAuthenticator } from "./credentials.js";
import { type NatsServers, parseNatsUrl } from "./servers.js";

/** What a client does on the server; its answers come to subjects of its role alone (docs/events.md). */
type NatsRole = "submitter" | "agent" | "watcher" | "coordinator";

/** The keys of a configuration, or the flags of a command, that lead to a server. */
export interface NatsSettings {
  readonly url: string;
  /** .creds, an nkey seed, or USER:PASSWORD. */
  readonly credentialsFile: string | null;
  readonly tokenFile: string | null;
  readonly tlsCaFile: string | null;
  /** Of the client, where the server asks for one. */
  readonly tlsCertFile: string | null;
  readonly tlsKeyFile: string | null;
  /** Allows secrets in clear text beyond loopback. */
  readonly insecure: boolean;
}

interface NatsOptions {
  readonly role: NatsRole;
  /** Shown by the server's monitoring. */
  readonly name: string;
  /** Called with a line for a person: the connection is lost or back, a secret is open to others. */
  readonly onNews: (line: string) => void;
  /** For the first connection; after it the client tries for ever. @default 10 s */
  readonly timeoutMs?: number;
}

/** The oldest release whose streams and buckets do all that they are asked for. */
const leastVersion = "2.11.0";
const reconnectWaitMs = 500;
/** A PEM file is a few KiB. */
const maxPemBytes = 1 << 20;
/** A server that answers no ping for twice as long is gone, though its socket is open. */
const pingIntervalMs = 5_000;
const maxUnansweredPings = 2;

/**
 * A connection to a NATS server or a cluster of them. Once it was open, it is opened again for ever, at
 * whatever server of the cluster is there; `onNews` tells of both. While it is away the library drops what is
 * published, so whoever publishes looks at `isOpen` and keeps what must not be lost, and whoever waits for an answer
 * asks through `ask`.
 */
export class NatsLink {
  readonly connection: NatsConnection;
  /** host:port of the servers that the settings name. */
  readonly servers: string;
  readonly #onNews: (line: string) => void;
  readonly #reopened = new Set<() => void>();
  /** Called once each, when the connection is lost. */
  readonly #asking = new Set<() => void>();
  #isOpen = true;
  #lostAtMs = 0;

  private constructor(connection: NatsConnection, servers: string, onNews: (line: string) => void) {
    this.connection = connection;
    this.servers = servers;
    this.#onNews = onNews;
    void this.#follow();
  }

  /**
   * @throws E_NATS_URL, E_NATS_CREDENTIALS, E_NATS_INSECURE, E_NATS_UNAVAILABLE, E_NATS_REFUSED, E_NATS_VERSION,
   *   E_TLS_FILES, E_TOKEN_INVALID and what reading a file comes to
   */
  static async open(settings: NatsSettings, options: NatsOptions): Promise<NatsLink> {
    const servers = parseNatsUrl(settings.url);
    const authenticator = await natsAuthenticator(settings, options.onNews);
    const tls = await tlsOf(settings, servers, options.onNews);
    refuseClearText(settings, servers, { authenticator, tls });
    const shown = servers.addresses.join(", ");
    const timeoutMs = options.timeoutMs ?? 10_000;
    const connection = await firstConnection(
      {
        servers: [...servers.addresses],
        name: options.name,
        // Loopback may lead to a cluster whose servers call each other by addresses that are not reached from here, or
        // not to be shown a secret in clear text.
        ignoreClusterUpdates: servers.remote.length === 0,
        inboxPrefix: `_INBOX_${options.role}`,
        ...(authenticator === undefined ? {} : { authenticator }),
        ...(tls === undefined ? {} : { tls }),
        timeout: timeoutMs,
        maxReconnectAttempts: -1,
        reconnectTimeWait: reconnectWaitMs,
        pingInterval: pingIntervalMs,
        maxPingOut: maxUnansweredPings,
        // An account that is changed while the server runs is refused for a moment, and lets in again.
        ignoreAuthErrorAbort: true,
      },
      shown,
    );
    const version = connection.info?.version ?? "unknown";
    if (!isAtLeast(version, leastVersion)) {
      await connection.close();
      const server = connection.getServer();
      throw new LockstepError("E_NATS_VERSION", { server, version, least: leastVersion });
    }
    return new NatsLink(connection, shown, options.onNews);
  }

  /** Whether what is sent now can arrive. */
  get isOpen(): boolean {
    return this.#isOpen && !this.connection.isClosed();
  }

  /**
   * Carries out what waits for answers, and ends where the connection is lost, without waiting longer: what was asked
   * by it gets no answer, and may have been done.
   *
   * @throws NatsError of a lost connection; what `action` throws
   */
  ask<T>(action: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const end = (): void => reject(lostConnection(this.connection.isClosed()));
      if (!this.isOpen) return end();
      this.#asking.add(end);
      void action()
        .then(resolve, reject)
        .finally(() => this.#asking.delete(end));
    });
  }

  get streams(): JetStreamClient {
    return this.connection.jetstream({ timeout: requestTimeoutMs });
  }

  /** @throws where JetStream is off for this account */
  async manager(): Promise<JetStreamManager> {
    return this.connection.jetstreamManager({ timeout: requestTimeoutMs, checkAPI: false });
  }

  /** @returns a function that ends the subscription */
  onReopened(listener: () => void): () => void {
    this.#reopened.add(listener);
    return () => this.#reopened.delete(listener);
  }

  async close(): Promise<void> {
    await this.connection.close();
  }

  async #follow(): Promise<void> {
    for await (const { type } of this.connection.status()) {
      if (type === Events.Disconnect) this.#lost();
      else if (type === Events.Reconnect) this.#back(this.connection.getServer());
      else if (type === DebugEvents.StaleConnection) this.#lost();
    }
    this.#isOpen = false;
    this.#endAsking();
  }

  #endAsking(): void {
    for (const end of this.#asking) end();
    this.#asking.clear();
  }

  #lost(): void {
    if (!this.#isOpen || this.connection.isClosed()) return;
    this.#isOpen = false;
    this.#lostAtMs = performance.now();
    this.#endAsking();
    this.#onNews(
      `the connection to NATS (${this.servers}) is lost; it is tried again until it is back`,
    );
  }

  #back(server: string): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    const seconds = ((performance.now() - this.#lostAtMs) / 1_000).toFixed(1);
    this.#onNews(`connected to NATS (${server}) again after ${seconds} s`);
    for (const listener of [...this.#reopened]) listener();
  }
}

const lostConnection = (isClosed: boolean): NatsError =>
  new NatsError(
    "the connection is lost",
    isClosed ? ErrorCode.ConnectionClosed : ErrorCode.Disconnect,
  );

/** Longest wait for an answer: a cluster without a leader elects one in a few seconds. */
const requestTimeoutMs = 5_000;

type ConnectionOptions = NonNullable<Parameters<typeof connect>[0]>;

/** @throws E_NATS_UNAVAILABLE, E_NATS_REFUSED */
async function firstConnection(
  options: ConnectionOptions,
  servers: string,
): Promise<NatsConnection> {
  try {
    return await connect(options);
  } catch (cause) {
    const reason = reasonOf(cause);
    const code = isRefusal(cause) ? "E_NATS_REFUSED" : "E_NATS_UNAVAILABLE";
    throw new LockstepError(code, { servers, reason }, { cause });
  }
}

const refusals: ReadonlySet<string> = new Set<string>([
  ErrorCode.AuthorizationViolation,
  ErrorCode.BadAuthentication,
  ErrorCode.AuthenticationExpired,
  ErrorCode.AccountExpired,
  ErrorCode.PermissionsViolation,
  ErrorCode.ServerOptionNotAvailable,
  ErrorCode.Tls,
]);

function isRefusal(error: unknown): boolean {
  if (error instanceof NatsError) return refusals.has(error.code);
  // Of node's TLS: a certificate of another authority, of another name, or none.
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return /CERT|TLS|SSL|SELF_SIGNED|UNABLE_TO/.test(code);
}

/** What went wrong, in words. */
function reasonOf(error: unknown): string {
  if (!(error instanceof NatsError)) return error instanceof Error ? error.message : String(error);
  switch (error.code) {
    case ErrorCode.AuthorizationViolation:
    case ErrorCode.BadAuthentication:
      return "it does not accept the credentials";
    case ErrorCode.ConnectionRefused:
      return "nothing listens there";
    case ErrorCode.Timeout:
    case ErrorCode.ConnectionTimeout:
      return "it did not answer in time";
    case ErrorCode.ServerOptionNotAvailable:
      return "it has no TLS, which the address asks for";
    default:
      return error.message;
  }
}

/** TLS as the scheme and the files ask for it; files are read again at each connection. */
async function tlsOf(
  { tlsCaFile, tlsCertFile, tlsKeyFile }: NatsSettings,
  { isTls }: NatsServers,
  onNews: (line: string) => void,
): Promise<TlsOptions | undefined> {
  const files = [tlsCaFile, tlsCertFile, tlsKeyFile].filter((file) => file !== null);
  if (!isTls) {
    if (files.length === 0) return undefined;
    const problem = "nats_url does not begin with tls://, so that nothing would be encrypted";
    throw new LockstepError("E_TLS_FILES", { files: files.join(" and "), problem });
  }
  if ((tlsCertFile === null) !== (tlsKeyFile === null)) {
    const problem = "a certificate of a client needs its key, and the key its certificate";
    throw new LockstepError("E_TLS_FILES", { files: files.join(" and "), problem });
  }
  const ca = tlsCaFile === null ? {} : { caFile: tlsCaFile };
  if (tlsCaFile !== null) readRegularTextSync(tlsCaFile, "TLS authority", maxPemBytes);
  if (tlsCertFile === null || tlsKeyFile === null) return ca;
  readTlsFiles({
    cert: tlsCertFile,
    key: tlsKeyFile,
    ...(tlsCaFile === null ? {} : { ca: tlsCaFile }),
  });
  await warnOfReaders(tlsKeyFile, "TLS key", onNews);
  return { ...ca, certFile: tlsCertFile, keyFile: tlsKeyFile };
}

/** @throws E_NATS_INSECURE */
function refuseClearText(
  { insecure, tokenFile }: NatsSettings,
  { remote: [server] }: NatsServers,
  given: { readonly authenticator?: Authenticator | undefined; readonly tls?: object | undefined },
): void {
  if (given.authenticator === undefined || given.tls !== undefined) return;
  if (server === undefined || insecure) return;
  const what = tokenFile === null ? "NATS credentials" : "NATS token";
  throw new LockstepError("E_NATS_INSECURE", { server, what });
}

/** Whether release "2.15.1" is `least` or a later one; what cannot be read is not. */
function isAtLeast(version: string, least: string): boolean {
  const numbers = (text: string): number[] => text.split(/[.-]/, 3).map(Number);
  const wanted = numbers(least);
  for (const [index, got] of numbers(version).entries()) {
    const want = wanted[index] ?? 0;
    if (got !== want) return got > want;
  }
  return true;
}
