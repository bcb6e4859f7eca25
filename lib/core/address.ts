import { isIPv4 } from "node:net";

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
