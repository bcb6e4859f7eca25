import { stat } from "node:fs/promises";
import { LockstepError } from "./errors/index.js";
import { readRegularFile } from "./regular-file.js";

/** Tokens travel in headers, which are a few KiB in all. */
const maxTokenChars = 4096;
/** A token in a larger file is the wrong file. */
const maxTokenFileBytes = 1 << 20;
/** A token that is guessed over the network has at least this many characters, of 16 kinds or more. */
const minTokenChars = 16;
/** Permission bits of users who are neither the owner nor of the group. */
const othersBits = 0o007;

/**
 * Reads a token: one line of printable ASCII, as headers carry it.
 *
 * @param what names the token in errors: "join token"
 * @param onWarning called with a line for a person where the token is weak or open to others
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE, E_TOKEN_INVALID
 */
export async function readToken(
  file: string,
  what: string,
  onWarning: (line: string) => void,
): Promise<string> {
  const bytes = await readRegularFile(file, { what, limitBytes: maxTokenFileBytes });
  const token = bytes.toString("utf8").trim();
  const invalid = (problem: string): LockstepError =>
    new LockstepError("E_TOKEN_INVALID", { file, what, problem });
  if (token === "") throw invalid("the file is empty");
  if (/[\r\n]/.test(token)) throw invalid("the file has several lines");
  if (!/^[ -~]+$/.test(token)) throw invalid("it has characters that are not printable ASCII");
  if (token.length > maxTokenChars) {
    throw invalid(`it has ${token.length} characters, of at most ${maxTokenChars}`);
  }
  if (token.length < minTokenChars) {
    onWarning(
      `the ${what} in ${file} has ${token.length} characters and can be guessed: ` +
        `use at least ${minTokenChars}, for example of \`openssl rand -hex 32\``,
    );
  }
  await warnOfReaders(file, what, onWarning);
  return token;
}

/** Tells of a secret that every user of the machine can read. */
export async function warnOfReaders(
  file: string,
  what: string,
  onWarning: (line: string) => void,
): Promise<void> {
  // Windows has no such bits: its files seem open to all.
  if (process.platform === "win32") return;
  const { mode } = await stat(file);
  if ((mode & othersBits) === 0) return;
  onWarning(
    `every user of this machine has access to the ${what} in ${file} ` +
      `(mode ${(mode & 0o777).toString(8).padStart(4, "0")}): chmod o= it`,
  );
}
