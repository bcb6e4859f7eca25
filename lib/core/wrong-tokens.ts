import { isIPv6 } from "node:net";

/** Wrong tokens that an address may send at once; a person who types one is not stopped. */
const allowance = 10;
/** After which one more is allowed. */
const refillMs = 6_000;
/** Addresses that are remembered, 100 bytes each; the one that was heard of first is forgotten. */
const maxAddresses = 4_096;

/** Counts wrong tokens by address, so that a short one cannot be guessed by trying. */
export class WrongTokens {
  readonly #nowMs: () => number;
  readonly #sources = new Map<string, { left: number; sinceMs: number }>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** @returns seconds after which the address may try again; 0: now */
  waitSeconds(address: string): number {
    const source = this.#sources.get(networkOf(address));
    if (source === undefined) return 0;
    this.#refill(source);
    return source.left >= 1
      ? 0
      : Math.ceil((source.sinceMs + refillMs - this.#nowMs()) / 1_000) || 1;
  }

  count(address: string): void {
    const network = networkOf(address);
    const source = this.#sources.get(network) ?? { left: allowance, sinceMs: this.#nowMs() };
    this.#refill(source);
    source.left -= 1;
    this.#sources.set(network, source);
    if (this.#sources.size <= maxAddresses) return;
    const [first] = this.#sources.keys();
    if (first !== undefined) this.#sources.delete(first);
  }

  #refill(source: { left: number; sinceMs: number }): void {
    const refilled = Math.floor((this.#nowMs() - source.sinceMs) / refillMs);
    if (refilled <= 0) return;
    source.left = Math.min(allowance, source.left + refilled);
    source.sinceMs += refilled * refillMs;
  }
}

/** An IPv4 address, or the 64 bits of an IPv6 address that one host has all addresses of. */
function networkOf(address: string): string {
  const bare = address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
  if (!isIPv6(bare)) return bare;
  const [head = "", tail] = bare.split("::");
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const rest = tail === "" ? [] : tail.split(":");
    while (groups.length + rest.length < 8) groups.push("0");
    groups.push(...rest);
  }
  return groups.slice(0, 4).join(":");
}
