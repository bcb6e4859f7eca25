import grpc from "@grpc/grpc-js";
import { isLoopback, splitAddress } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { readRegularFile } from "#lib/core/regular-file";
import { isSameSecret } from "./member.js";

/** What protects the connections of a job. Plain data, so that it can be handed to a thread. */
export interface WireSecurity {
  /** Shared secret, sent with every call. */
  readonly joinToken?: string;
  /** Mutual TLS: both sides show a certificate of this authority. PEM text. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
  /** The name to expect in the server's certificate, where it differs from the address. */
  readonly tlsServerName?: string;
  /** Allows to listen beyond loopback without the two above. */
  readonly insecure?: boolean;
}

interface WireSecurityFiles {
  readonly joinTokenFile?: string | undefined;
  readonly tlsCaFile?: string | undefined;
  readonly tlsCertFile?: string | undefined;
  readonly tlsKeyFile?: string | undefined;
  readonly tlsServerName?: string | undefined;
  readonly insecure?: boolean | undefined;
}

/** A token or a PEM chain is a few KiB; a larger file is the wrong file. */
const maxSecretFileBytes = 1024 * 1024;

/** @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE */
export async function loadWireSecurity(files: WireSecurityFiles): Promise<WireSecurity> {
  const read = async (file: string, what: string): Promise<string> =>
    (await readRegularFile(file, { what, limitBytes: maxSecretFileBytes })).toString("utf8");
  const { joinTokenFile, tlsCaFile, tlsCertFile, tlsKeyFile, tlsServerName, insecure } = files;
  return {
    ...(joinTokenFile === undefined
      ? {}
      : { joinToken: (await read(joinTokenFile, "join token")).trim() }),
    ...(tlsCaFile === undefined || tlsCertFile === undefined || tlsKeyFile === undefined
      ? {}
      : {
          tls: {
            ca: await read(tlsCaFile, "TLS authority"),
            cert: await read(tlsCertFile, "TLS certificate"),
            key: await read(tlsKeyFile, "TLS key"),
          },
        }),
    ...(tlsServerName === undefined ? {} : { tlsServerName }),
    ...(insecure === undefined ? {} : { insecure }),
  };
}

/** @param address host:port */
export const isLoopbackAddress = (address: string): boolean =>
  isLoopback(splitAddress(address).host);

/** @throws E_INSECURE_BIND when other machines could reach an unprotected port. */
export function assertBindAllowed(host: string, security: WireSecurity): void {
  if (isLoopback(host) || security.insecure === true) return;
  const missing = [
    ...(security.tls === undefined ? ["mutual TLS"] : []),
    ...(security.joinToken === undefined || security.joinToken === "" ? ["a join token"] : []),
  ];
  if (missing.length > 0) {
    throw new LockstepError("E_INSECURE_BIND", { host, missing: missing.join(" and ") });
  }
}

const tokenKey = "lockstep-join-token";

export function callMetadata(
  security: WireSecurity,
  entries: Readonly<Record<string, string>> = {},
): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (security.joinToken !== undefined) metadata.set(tokenKey, security.joinToken);
  for (const [key, value] of Object.entries(entries)) metadata.set(key, value);
  return metadata;
}

/** Compares in constant time. @throws E_JOIN_TOKEN */
export function assertJoinToken(
  security: WireSecurity,
  metadata: grpc.Metadata,
  peer: string,
): void {
  if (security.joinToken === undefined) return;
  const given = metadata.get(tokenKey)[0];
  if (typeof given !== "string" || !isSameSecret(given, security.joinToken)) {
    throw new LockstepError("E_JOIN_TOKEN", { peer });
  }
}

export function serverCredentials(security: WireSecurity): grpc.ServerCredentials {
  const { tls } = security;
  if (tls === undefined) return grpc.ServerCredentials.createInsecure();
  return grpc.ServerCredentials.createSsl(
    Buffer.from(tls.ca),
    [{ private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) }],
    true,
  );
}

export function clientCredentials(security: WireSecurity): grpc.ChannelCredentials {
  const { tls } = security;
  if (tls === undefined) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(
    Buffer.from(tls.ca),
    Buffer.from(tls.key),
    Buffer.from(tls.cert),
  );
}
