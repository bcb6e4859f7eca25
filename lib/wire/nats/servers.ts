import { hostPort, isHost, isLoopback } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";

/** The servers of `nats_url`. */
export interface NatsServers {
  /** host:port of each. */
  readonly addresses: readonly string[];
  /** Whether the connection is to be encrypted, by the scheme. */
  readonly isTls: boolean;
  /** Servers that are not this machine's loopback. */
  readonly remote: readonly string[];
}

/** Servers of one cluster; more is a mistake. */
const maxServers = 32;
const defaultPort = 4222;

/**
 * "nats://a:4222,nats://b:4222" in its parts.
 *
 * @throws E_NATS_URL
 */
export function parseNatsUrl(url: string): NatsServers {
  const parts = url.split(",").map((part) => part.trim());
  const refuse = (problem: string): LockstepError =>
    new LockstepError("E_NATS_URL", { url: shown(url), problem });
  if (parts.length > maxServers) throw refuse(`it names ${parts.length} of at most ${maxServers}`);
  const servers = parts.map((part) => {
    const [, scheme = "nats", authority = ""] = /^(?:([a-z]+):\/\/)?([^/]*)\/?$/i.exec(part) ?? [];
    if (authority === "") throw refuse("it has no host, or a path");
    if (!["nats", "tls"].includes(scheme.toLowerCase())) {
      throw refuse(`its scheme is ${scheme}; there are nats and tls`);
    }
    if (authority.includes("@")) {
      throw refuse("a secret does not belong into an address, which is printed and logged");
    }
    const [, host = "", port] = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(authority) ?? [];
    if (!isHost(host)) throw refuse(`${authority} is no HOST:PORT`);
    const number = port === undefined ? defaultPort : Number(port);
    if (number < 1 || number > 65_535) throw refuse(`${number} is no port`);
    return { scheme: scheme.toLowerCase(), host, address: hostPort(host, number) };
  });
  const schemes = new Set(servers.map(({ scheme }) => scheme));
  if (schemes.size > 1) throw refuse("some of its servers are called by tls:// and some are not");
  return {
    addresses: servers.map(({ address }) => address),
    isTls: schemes.has("tls"),
    remote: servers.filter(({ host }) => !isLoopback(host)).map(({ address }) => address),
  };
}

/** Without what stands before an @, which may be a secret. */
const shown = (url: string): string => url.replaceAll(/(^|\/\/|,)[^@,/]*@/g, "$1...@");
