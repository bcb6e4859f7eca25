import { createPrivateKey, X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import { createSecureContext, type Server } from "node:tls";
import { isLockstepError, LockstepError } from "./errors/index.js";
import { readRegularTextSync } from "./regular-file.js";

/** PEM files of one side of a connection. Plain data, so that it can be handed to a thread. */
export interface TlsFileNames {
  /** Certificate, with its chain. */
  readonly cert: string;
  readonly key: string;
  /** Authority of the other side's certificate; absent: the other side shows none. */
  readonly ca?: string;
}

/** What the files hold, PEM texts. */
interface TlsTexts {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string;
}

/** A PEM chain is a few KiB; a larger file is the wrong file. */
const maxPemBytes = 1 << 20;
/** How often new connections have the files looked at, at most. */
const lookIntervalMs = 1_000;

/**
 * Reads and checks PEM files that belong together.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_TLS_FILES
 */
export function readTlsFiles(files: TlsFileNames): TlsTexts {
  const read = (file: string, what: string): string => readRegularTextSync(file, what, maxPemBytes);
  const texts: TlsTexts = {
    cert: read(files.cert, "TLS certificate"),
    key: read(files.key, "TLS key"),
    ...(files.ca === undefined ? {} : { ca: read(files.ca, "TLS authority") }),
  };
  const check = (files: string, attempt: () => void): void => {
    try {
      attempt();
    } catch (cause) {
      const problem = cause instanceof Error ? cause.message : String(cause);
      throw new LockstepError("E_TLS_FILES", { files, problem }, { cause });
    }
  };
  const { ca, cert, key } = texts;
  // A context takes empty texts, and an authority without a certificate in it, for none given.
  if (ca !== undefined) check(String(files.ca), () => new X509Certificate(ca));
  check(files.cert, () => new X509Certificate(cert));
  check(files.key, () => createPrivateKey(key));
  check(`${files.cert} and ${files.key}`, () => createSecureContext(texts));
  return texts;
}

/** Certificate files that may be replaced while the process runs, as cert-manager and Kubernetes do. */
export class TlsFiles {
  readonly #files: TlsFileNames;
  readonly #onNews: (line: string) => void;
  #texts: TlsTexts;
  /** Of what `#texts` were read from, or of what could not be used since. */
  #stamp: string;
  #lookedAtMs: number;
  /** What was told last of files that cannot be used. */
  #trouble = "";

  /**
   * @param onNews called with a line for a person: the files changed and are in use, or cannot be used
   * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_TLS_FILES
   */
  constructor(files: TlsFileNames, onNews: (line: string) => void) {
    this.#files = files;
    this.#onNews = onNews;
    this.#stamp = stampOf(files);
    this.#texts = readTlsFiles(files);
    this.#lookedAtMs = performance.now();
  }

  /** As they were read last. */
  get texts(): TlsTexts {
    return this.#texts;
  }

  /**
   * Looks whether the files changed, at most once a second, and reads them again; what cannot be used is
   * told, and the texts stay as they are.
   *
   * @returns whether the texts are others than before
   */
  look(): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#lookedAtMs < lookIntervalMs) return false;
    this.#lookedAtMs = nowMs;
    const stamp = stampOf(this.#files);
    if (stamp === this.#stamp) return false;
    try {
      this.#texts = readTlsFiles(this.#files);
    } catch (error) {
      const trouble = error instanceof Error ? error.message : String(error);
      // What the files are not to blame for may pass: they are read again.
      if (isLockstepError(error)) this.#stamp = stamp;
      else if (trouble === this.#trouble) return false;
      this.#trouble = trouble;
      this.#onNews(`warning: the TLS files changed, those before stay in use: ${trouble}`);
      return false;
    }
    this.#stamp = stamp;
    this.#trouble = "";
    const { validTo } = new X509Certificate(this.#texts.cert);
    this.#onNews(`the TLS files changed; ${this.#files.cert} is in use, valid until ${validTo}`);
    return true;
  }
}

/** New connections of a server get the certificate that the files hold when they begin. */
export function followTlsFiles(server: Pick<Server, "prependListener">, files: TlsFiles): void {
  server.prependListener("connection", () => {
    if (files.look()) (server as Server).setSecureContext(files.texts);
  });
}

/** What changes with a file's content or with the link that leads to it. */
function stampOf(files: TlsFileNames): string {
  return [files.cert, files.key, files.ca]
    .map((file) => {
      if (file === undefined) return "";
      try {
        const { ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true });
        return [ino, size, mtimeNs, ctimeNs].join();
      } catch {
        // What is wrong with it shows when it is read.
        return "unreadable";
      }
    })
    .join(" ");
}
