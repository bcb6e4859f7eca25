import { readFileSync } from "node:fs";
import type { Server, Socket } from "node:net";
import type { ConnectionCounts } from "./connection-limits.js";
import type { ConnectionRefusal } from "./events.js";

/**
 * Descriptors that no connection gets: a save opens some twenty at once, data files and logs are open
 * beside it.
 */
const reservedDescriptors = 128;
/** Time to show who one is: a handshake and a small message over a bad network take a second. */
const defaultProofMs = 10_000;
const sweepMs = 1_000;
/** Workers that start together are handed over at once; of those that show nothing twenty a second are. */
const handOverBurst = 64;
const refillMs = 50;
const handOversPerRefill = 1;

export interface ConnectionLimits extends ConnectionCounts {
  /** @default 10 s */
  readonly proofMs?: number;
  /** Called at most once a second for each reason. */
  readonly onRefused?: ((reason: ConnectionRefusal, numConnections: number) => void) | undefined;
}

interface Connection {
  readonly socket: Socket;
  readonly key: string;
  readonly address: string;
  /** Waits to be handed over to its server. */
  isWaiting: boolean;
  numSweeps: number;
}

/**
 * Keeps the connections of a server within limits, from the moment at which they are accepted: before TLS,
 * before HTTP. Whoever has shown a token, or what stands for one, is **proven**; of the others there are few
 * at a time, for a short time, and only so many a second reach the server, whose sessions and handshakes cost
 * memory and processor time. Addresses take turns, and those that have most connections lose them first, so
 * that a worker gets in while somebody else floods.
 */
export class ConnectionGate {
  readonly #limits: ConnectionLimits;
  readonly #handOver: (socket: Socket) => void;
  /** Every socket that was accepted; of a TLS server the ones below the handshake. */
  readonly #open = new Set<Socket>();
  /** By addresses and the port of the other side, which a TLS socket and an HTTP/2 session know too. */
  readonly #unproven = new Map<string, Connection>();
  readonly #proven = new Map<string, Connection>();
  /** Unproven ones by address, whose turn is next first; of each the oldest first. */
  readonly #byAddress = new Map<string, Set<Connection>>();
  /** Of the unproven ones. */
  #numHandedOver = 0;
  /** Connections that may be handed over at once. */
  #allowance = handOverBurst;
  #refill: NodeJS.Timeout | undefined;
  /** Since the last sweep. */
  readonly #refused = new Map<ConnectionRefusal, number>();
  readonly #sweeper: NodeJS.Timeout;

  /** @param server has its listeners of connections, and has accepted none */
  constructor(server: Server, limits: ConnectionLimits) {
    this.#limits = limits;
    const listeners = server.listeners("connection");
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => this.#admit(socket));
    this.#handOver = (socket) => {
      for (const listener of listeners) listener.call(server, socket);
    };
    // Without a listener a failed accept would end the process; the next one may succeed.
    server.on("error", () => {});
    // Ticks, not times: those who waited while this process was stopped are not late.
    this.#sweeper = setInterval(() => this.#sweep(), sweepMs);
    this.#sweeper.unref();
    server.on("close", () => {
      clearInterval(this.#sweeper);
      clearInterval(this.#refill);
    });
  }

  isProven(peer: Peer): boolean {
    return this.#proven.has(keyOf(peer));
  }

  /** The connection of this peer may stay. @returns false where there are too many: it was closed */
  prove(peer: Peer): boolean {
    const key = keyOf(peer);
    const connection = this.#unproven.get(key);
    if (connection === undefined) return this.#proven.has(key);
    this.#forget(connection);
    if (this.#proven.size >= this.#limits.maxProven) {
      this.#refuse(connection.socket, "full");
      return false;
    }
    this.#proven.set(key, connection);
    this.#allowMore(1);
    return true;
  }

  /** Ends what has shown nothing, so that its server does not wait for it. */
  closeUnproven(): void {
    for (const { socket } of this.#unproven.values()) socket.destroy();
  }

  /**
   * Ends every connection. One that never says a word, or that is half through a TLS handshake or an HTTP/2 preface,
   * is no request and no session yet: `close` of the servers built on top does not know of it, and it would keep
   * the process alive.
   */
  closeAll(): void {
    for (const socket of this.#open) socket.destroy();
  }

  #admit(socket: Socket): void {
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    const { remoteAddress: address } = socket;
    // Gone already.
    if (address === undefined) {
      socket.destroy();
      return;
    }
    if (isLastDescriptors(socket)) {
      this.#refuse(socket, "descriptors");
      return;
    }
    const numWaiting = this.#unproven.size - this.#numHandedOver;
    if (numWaiting >= this.#limits.maxWaiting) this.#makeRoom(({ isWaiting }) => isWaiting);
    const key = keyOf(socket);
    const connection: Connection = { socket, key, address, isWaiting: true, numSweeps: 0 };
    // A port that is used again at once.
    this.#proven.delete(key);
    this.#unproven.set(key, connection);
    const ofAddress = this.#byAddress.get(address) ?? new Set();
    this.#byAddress.set(address, ofAddress.add(connection));
    socket.once("close", () => {
      if (this.#unproven.get(key) === connection) this.#forget(connection);
      if (this.#proven.get(key) === connection) this.#proven.delete(key);
    });
    // What breaks while it waits has nobody else to hear of it.
    socket.on("error", () => {});
    setReading(socket, false);
    this.#handOverSome();
  }

  #handOverSome(): void {
    while (this.#allowance > 0) {
      const connection = this.#next();
      if (connection === undefined) break;
      if (this.#numHandedOver >= this.#limits.maxHandedOver) {
        this.#makeRoom(({ isWaiting }) => !isWaiting);
      }
      this.#allowance -= 1;
      this.#numHandedOver += 1;
      connection.isWaiting = false;
      setReading(connection.socket, true);
      this.#handOver(connection.socket);
    }
    this.#refill ??= setInterval(() => this.#allowMore(handOversPerRefill), refillMs).unref();
  }

  #allowMore(numHandOvers: number): void {
    this.#allowance = Math.min(handOverBurst, this.#allowance + numHandOvers);
    this.#handOverSome();
    if (this.#allowance < handOverBurst) return;
    clearInterval(this.#refill);
    this.#refill = undefined;
  }

  /** The oldest that waits, of the address whose turn it is. */
  #next(): Connection | undefined {
    for (const [address, connections] of this.#byAddress) {
      for (const connection of connections) {
        if (!connection.isWaiting) continue;
        this.#byAddress.delete(address);
        this.#byAddress.set(address, connections);
        return connection;
      }
    }
    return undefined;
  }

  /** Closes the oldest of some, of the address that has most of them; among equals, most of all. */
  #makeRoom(isOfThem: (connection: Connection) => boolean): void {
    let most: readonly Connection[] = [];
    let mostOfAll = 0;
    for (const connections of this.#byAddress.values()) {
      if (connections.size < most.length) continue;
      const some = [...connections].filter(isOfThem);
      const isMore = some.length - most.length || connections.size - mostOfAll;
      if (isMore <= 0) continue;
      most = some;
      mostOfAll = connections.size;
    }
    const [oldest] = most;
    if (oldest === undefined) return;
    this.#forget(oldest);
    this.#refuse(oldest.socket, "crowd");
  }

  #sweep(): void {
    const maxSweeps = (this.#limits.proofMs ?? defaultProofMs) / sweepMs;
    for (const connection of this.#unproven.values()) {
      if (++connection.numSweeps <= maxSweeps) continue;
      this.#forget(connection);
      this.#refuse(connection.socket, "silence");
    }
    for (const [reason, num] of this.#refused) this.#limits.onRefused?.(reason, num);
    this.#refused.clear();
  }

  #forget(connection: Connection): void {
    const { key, address } = connection;
    this.#unproven.delete(key);
    if (!connection.isWaiting) this.#numHandedOver -= 1;
    const ofAddress = this.#byAddress.get(address);
    ofAddress?.delete(connection);
    if (ofAddress?.size === 0) this.#byAddress.delete(address);
  }

  #refuse(socket: Socket, reason: ConnectionRefusal): void {
    socket.destroy();
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }
}

/** What a socket, a TLS socket and a session's socket say of the other side. */
interface Peer {
  readonly localAddress?: string | undefined;
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

/** One port of the other side may be connected to several addresses of this one. */
const keyOf = ({ localAddress = "", remoteAddress = "", remotePort = 0 }: Peer): string =>
  `${localAddress} ${remoteAddress} ${remotePort}`;

/** Soft limit of open files; Node raises it to the hard one when it starts. */
const maxDescriptors = ((): number => {
  try {
    const [, soft = ""] =
      /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return soft === "" ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
})();

/** What Node keeps of a socket on POSIX systems. */
interface Handle {
  readonly fd: number;
  reading: boolean;
  readStart(): void;
  readStop(): void;
}

const handleOf = (socket: Socket): Handle | null =>
  (socket as unknown as { readonly _handle: Handle | null })._handle;

/** The system gives the lowest free descriptor: a high one says how many are in use, in all threads. */
const isLastDescriptors = (socket: Socket): boolean =>
  (handleOf(socket)?.fd ?? -1) >=
  maxDescriptors - Math.min(reservedDescriptors, maxDescriptors / 4);

/** Whether bytes are read before anybody asks for them, as Node does with a socket that it accepted. */
function setReading(socket: Socket, reading: boolean): void {
  const handle = handleOf(socket);
  if (handle === null || handle.reading === reading) return;
  handle.reading = reading;
  if (reading) handle.readStart();
  else handle.readStop();
}
