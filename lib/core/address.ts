import { isIP, isIPv4, SocketAddress } from "node:net";

/** A host as sockets take it: an IPv6 address without its brackets. */
export const bareHost = (host: string): string => host.replace(/^\[(.*)\]$/, "$1");

/** HOST:PORT, an IPv6 address in brackets: for a URL, for gRPC and for a person. */
export function hostPort(host: string, port: number | string): string {
  const bare = bareHost(host);
  return bare.includes(":") ? `[${bare}]:${port}` : `${bare}:${port}`;
}

/** "127.0.0.1:0" or "[::1]:0" in its parts, the host without brackets. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(":");
  return { host: bareHost(address.slice(0, colon)), port: Number(address.slice(colon + 1)) };
}

/**
 * Whether a host is this machine alone, by its spelling: other names may resolve to anything, and to
 * something else the next time.
 */
export function isLoopback(host: string): boolean {
  const bare = bareHost(host).toLowerCase();
  return bare === "localhost" || bare === "::1" || (isIPv4(bare) && bare.startsWith("127."));
}

/** Whether a host stands for all addresses of a machine, at which nobody can be called. */
export function isWildcard(host: string): boolean {
  const bare = bareHost(host);
  if (isIP(bare) !== 6) return bare === "" || /^(0+|0x0+)(\.(0+|0x0+)){0,3}$/i.test(bare);
  const { address } = new SocketAddress({ address: bare, family: "ipv6" });
  return address === "::" || address === "::ffff:0.0.0.0";
}

/** An address of this machine at which a server is called that listens on a host. */
export function loopbackOf(host: string): string {
  if (!isWildcard(host)) return bareHost(host);
  return host.includes(":") ? "::1" : "127.0.0.1";
}

/** Whether text is a name or an address of a host, without a scheme, a port or a path. */
export function isHost(text: string): boolean {
  if (isIP(bareHost(text)) !== 0) return true;
  return text.length <= 253 && /^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?$/i.test(text);
}
