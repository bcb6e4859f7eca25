import {
  type Authenticator,
  credsAuthenticator,
  nkeyAuthenticator,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from "nats";
import { LockstepError } from "#lib/core/errors/index";
import { readRegularTextSync } from "#lib/core/regular-file";
import { readToken, warnOfReaders } from "#lib/core/secret-files";

/** A .creds file is a few KiB. */
const maxCredentialsBytes = 1 << 16;

interface CredentialFiles {
  readonly credentialsFile: string | null;
  readonly tokenFile: string | null;
}

/**
 * What the server is shown. Files are read again at each connection, so that a renewed one is used.
 *
 * @param onWarning called with a line for a person where a secret is weak or open to others
 * @returns undefined where nothing is shown
 * @throws E_NATS_CREDENTIALS, E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_TOKEN_INVALID
 */
export async function natsAuthenticator(
  { credentialsFile, tokenFile }: CredentialFiles,
  onWarning: (line: string) => void,
): Promise<Authenticator | undefined> {
  if (tokenFile !== null) {
    if (credentialsFile !== null) {
      throw new LockstepError("E_NATS_CREDENTIALS", {
        file: credentialsFile,
        problem: `${tokenFile} is given too (nats_token_file), and a client shows one of them`,
      });
    }
    let token = await readToken(tokenFile, "NATS token", onWarning);
    return tokenAuthenticator(() => {
      token = readAgain(tokenFile) ?? token;
      return token;
    });
  }
  if (credentialsFile === null) return undefined;
  let authenticator = readCredentials(credentialsFile);
  await warnOfReaders(credentialsFile, "NATS credentials", onWarning);
  return (nonce) => {
    try {
      authenticator = readCredentials(credentialsFile);
    } catch {
      // What was read before may still do; if not, the server says so.
    }
    return authenticator(nonce);
  };
}

function readAgain(file: string): string | undefined {
  try {
    return readRegularTextSync(file, "NATS token", maxCredentialsBytes).trim() || undefined;
  } catch {
    return undefined;
  }
}

/** @throws E_NATS_CREDENTIALS, E_FILE_NOT_FOUND, E_FILE_UNREADABLE */
function readCredentials(file: string): Authenticator {
  const text = readRegularTextSync(file, "NATS credentials", maxCredentialsBytes).trim();
  // The library looks for whole lines.
  const bytes = new TextEncoder().encode(`${text}\n`);
  const refuse = (problem: string): LockstepError =>
    new LockstepError("E_NATS_CREDENTIALS", { file, problem });
  if (text === "") throw refuse("the file is empty");
  if (text.includes("BEGIN NATS USER JWT")) return checked(credsAuthenticator(bytes), refuse);
  if (/\s/.test(text)) throw refuse("it is no .creds file, and has several lines or blanks");
  if (/^SU[A-Z2-7]+$/.test(text))
    return checked(nkeyAuthenticator(new TextEncoder().encode(text)), refuse);
  const colon = text.indexOf(":");
  if (colon < 1 || colon === text.length - 1)
    throw refuse("it has neither a seed nor USER:PASSWORD");
  return usernamePasswordAuthenticator(text.slice(0, colon), text.slice(colon + 1));
}

/** Tries what the server will ask for: keys are read when they are used. */
function checked(
  authenticator: Authenticator,
  refuse: (problem: string) => LockstepError,
): Authenticator {
  try {
    authenticator("nonce");
  } catch {
    // What the library says of it may hold a part of the key.
    throw refuse("the keys in it are damaged");
  }
  return authenticator;
}
