import { MessageProxy } from "./message-proxy.js";
import type { MessageAct, Schedule } from "./schedule.js";
import { TcpProxy } from "./tcp-proxy.js";

export const controlPort = 7070;

/**
 * Where a run's connections pass: the coordinator listens on one address of the loopback network, its workers
 * know another, and between them lie proxies, with the same ports.
 */
interface Addresses {
  readonly coordinator: string;
  /** Where messages are taken apart. */
  readonly messages: string;
  /** What workers know. */
  readonly public: string;
}

/** @param slot of runs at a time in this process: from 0 to 83 */
export function addressesOf(slot: number): Addresses {
  const { pid } = process;
  const host = (index: number): string =>
    `127.${100 + ((pid >> 8) & 0x7f)}.${pid & 0xff}.${1 + slot * 3 + index}`;
  return { coordinator: host(0), messages: host(1), public: host(2) };
}

/** The proxies of a run: of the control port first, then a shard each. */
export class Wires {
  readonly #outer: readonly TcpProxy[];
  readonly #inner: readonly MessageProxy[];

  /** @param onAct told of each message fault that happened */
  constructor(
    { numShards, faults }: Schedule,
    addresses: Addresses,
    options: {
      readonly onBytes: (numBytes: number) => void;
      readonly onAct: (act: MessageAct) => void;
    },
  ) {
    const acts = new Set(faults.flatMap((fault) => (fault.kind === "message" ? [fault.is] : [])));
    const takesMessages = acts.size > 0;
    const ports = Array.from({ length: 1 + numShards }, (_, index) => controlPort + index);
    const at = (host: string, port: number) => ({ host, port });
    const { coordinator, messages, public: known } = addresses;
    this.#inner = takesMessages
      ? ports.map(
          (port) =>
            new MessageProxy({
              listen: at(messages, port),
              target: at(coordinator, port),
              take: (call, nth) => {
                const act = [...acts].find((each) => each.call === call && each.nth <= nth);
                if (act === undefined) return undefined;
                acts.delete(act);
                options.onAct(act);
                return act;
              },
            }),
        )
      : [];
    this.#outer = ports.map(
      (port) =>
        new TcpProxy({
          listen: at(known, port),
          target: at(takesMessages ? messages : coordinator, port),
          onBytes: options.onBytes,
        }),
    );
  }

  async open(): Promise<void> {
    await Promise.all([...this.#inner, ...this.#outer].map((proxy) => proxy.open()));
  }

  /** @param index 0: the control port; from 1: shards */
  proxy(index: number): TcpProxy {
    const proxy = this.#outer[index % this.#outer.length];
    if (proxy === undefined) throw new RangeError(`there is no proxy ${index}`);
    return proxy;
  }

  close(): void {
    for (const proxy of [...this.#outer, ...this.#inner]) proxy.close();
  }
}
