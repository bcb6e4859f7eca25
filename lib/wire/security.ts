import type { PeerCertificate } from "node:tls";
import grpc from "@grpc/grpc-js";
import { isLoopback, splitAddress } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { readToken, warnOfReaders } from "#lib/core/secret-files";
import { readTlsFiles, TlsFiles, type TlsFileNames } from "#lib/core/tls-files";
import { isSameSecret } from "./member.js";

/** What protects the connections of a job. Plain data, so that it can be handed to a thread. */
export interface WireSecurity {
  /** Shared secret, sent with every call. */
  readonly joinToken?: string;
  /** Mutual TLS: both sides show a certificate of this authority. PEM text. */
  readonly tls?: {
    readonly ca: string;
    readonly cert: string;
    readonly key: string;
    /** Where the texts are from: new connections follow what these files hold. */
    readonly files?: Required<TlsFileNames>;
  };
  /** The name to expect in the server's certificate, where it differs from the address. */
  readonly tlsServerName?: string;
  /** Allows to listen, and to send the token, beyond loopback without the two above. */
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

/**
 * @param onWarning called with a line for a person where a secret is weak or open to others
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE, E_TOKEN_INVALID, E_TLS_FILES
 */
export async function loadWireSecurity(
  files: WireSecurityFiles,
  onWarning: (line: string) => void,
): Promise<WireSecurity> {
  const { joinTokenFile, tlsCaFile, tlsCertFile, tlsKeyFile, tlsServerName, insecure } = files;
  const tls = await readMutualTls([tlsCaFile, tlsCertFile, tlsKeyFile], onWarning);
  return {
    ...(joinTokenFile === undefined
      ? {}
      : { joinToken: await readToken(joinTokenFile, "join token", onWarning) }),
    ...(tls === undefined ? {} : { tls }),
    ...(tlsServerName === undefined ? {} : { tlsServerName }),
    ...(insecure === undefined ? {} : { insecure }),
  };
}

async function readMutualTls(
  [ca, cert, key]: readonly (string | undefined)[],
  onWarning: (line: string) => void,
): Promise<WireSecurity["tls"]> {
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if (ca === undefined || cert === undefined || key === undefined) {
    const given = [ca, cert, key].filter((file) => file !== undefined).join(" and ");
    const problem = "mutual TLS needs an authority, a certificate and a key";
    throw new LockstepError("E_TLS_FILES", { files: given, problem });
  }
  const files = { ca, cert, key };
  const texts = readTlsFiles(files);
  await warnOfReaders(key, "TLS key", onWarning);
  return { ...texts, ca: String(texts.ca), files };
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

/**
 * Judged by what the address says, not by what it resolves to: a name that leads to this machine today may
 * lead elsewhere tomorrow.
 *
 * @param address host:port
 * @throws E_INSECURE_CONNECT where the token would be readable on the way
 */
export function assertSendAllowed(address: string, security: WireSecurity): void {
  const { joinToken, tls, insecure } = security;
  if (joinToken === undefined || tls !== undefined || insecure === true) return;
  if (!isLoopbackAddress(address)) throw new LockstepError("E_INSECURE_CONNECT", { address });
}

/** The certificate files of a side that follows them; undefined where there are none. */
export const tlsFilesOf = (
  { tls }: WireSecurity,
  onNews: (line: string) => void,
): TlsFiles | undefined => tls?.files && new TlsFiles(tls.files, onNews);

export function serverCredentials({ tls }: WireSecurity): grpc.ServerCredentials {
  if (tls === undefined) return grpc.ServerCredentials.createInsecure();
  return grpc.ServerCredentials.createSsl(
    Buffer.from(tls.ca),
    [{ private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) }],
    true,
  );
}

/** @param onNews as of {@link TlsFiles} */
export function clientCredentials(
  security: WireSecurity,
  onNews: (line: string) => void,
): grpc.ChannelCredentials {
  const { tls } = security;
  if (tls === undefined) return grpc.credentials.createInsecure();
  const files = tlsFilesOf(security, onNews);
  if (files === undefined) {
    return grpc.credentials.createSsl(
      Buffer.from(tls.ca),
      Buffer.from(tls.key),
      Buffer.from(tls.cert),
    );
  }
  const provider = new FollowingProvider(files);
  return grpc.experimental.createCertificateProviderChannelCredentials(provider, provider);
}

/** Hands grpc-js the certificates as their files are when a connection begins. */
class FollowingProvider implements grpc.experimental.CertificateProvider {
  readonly #files: TlsFiles;

  constructor(files: TlsFiles) {
    this.#files = files;
  }

  addCaCertificateListener(listener: grpc.experimental.CaCertificateUpdateListener): void {
    const files = this.#files;
    listener({
      // grpc-js reads the authority first, at each connection.
      get caCertificate() {
        files.look();
        return Buffer.from(String(files.texts.ca));
      },
    });
  }

  addIdentityCertificateListener(
    listener: grpc.experimental.IdentityCertificateUpdateListener,
  ): void {
    const files = this.#files;
    listener({
      get certificate() {
        return Buffer.from(files.texts.cert);
      },
      get privateKey() {
        return Buffer.from(files.texts.key);
      },
    });
  }

  removeCaCertificateListener(): void {}

  removeIdentityCertificateListener(): void {}
}

/**
 * Whom a caller's certificate names: subject and alternative names, which a renewed certificate keeps; the
 * certificate's SHA-256 where it names nobody. undefined without mutual TLS.
 */
export function certificateHolder(call: {
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate };
}): string | undefined {
  const certificate = call.getAuthContext().sslPeerCertificate;
  if (certificate === undefined) return undefined;
  const subject = Object.entries(certificate.subject ?? {}).map(
    ([key, value]) => `${key}=${String(value)}`,
  );
  const names = [...subject, ...(certificate.subjectaltname ? [certificate.subjectaltname] : [])];
  return names.join(", ") || certificate.fingerprint256;
}
