import { LockstepError } from "#lib/core/errors/index";
import type { HttpServerOptions } from "#lib/core/http-server";
import { readToken, warnOfReaders } from "#lib/core/secret-files";

interface HttpFiles {
  readonly tokenFile: string | null;
  readonly tlsCertFile: string | null;
  readonly tlsKeyFile: string | null;
}

/**
 * What protects metrics and dashboard, out of its files.
 *
 * @param onWarning called with a line for a person where a secret is weak or open to others
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE, E_TOKEN_INVALID, E_TLS_FILES
 */
export async function httpSecurity(
  { tokenFile, tlsCertFile: cert, tlsKeyFile: key }: HttpFiles,
  onWarning: (line: string) => void,
): Promise<Pick<HttpServerOptions, "token" | "tls">> {
  if ((cert === null) !== (key === null)) {
    const problem = "TLS of HTTP needs a certificate and a key";
    throw new LockstepError("E_TLS_FILES", { files: String(cert ?? key), problem });
  }
  const token =
    tokenFile === null ? undefined : await readToken(tokenFile, "HTTP token", onWarning);
  if (cert === null || key === null) return { token };
  await warnOfReaders(key, "TLS key", onWarning);
  return { token, tls: { cert, key } };
}
