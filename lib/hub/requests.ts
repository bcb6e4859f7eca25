import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { HubModel } from "./repository.js";
import type { HubSettings } from "./settings.js";

/** A page of a listing has 1000 files of some 300 bytes. */
const maxAnswerBytes = 16 << 20;
/** Questions about one repository: a listing that never ends is given up. */
const maxQuestions = 100;
/** Characters of a server's own words in a message. */
const maxShownCharacters = 200;

/** An answer that is no success. */
export class HubStatus extends Error {
  override readonly name = "HubStatus";
  readonly status: number;
  /** The hub's own word for it, `GatedRepo`. */
  readonly code: string | undefined;

  constructor(status: number, code: string | undefined, said: string) {
    super(said === "" ? `it answered ${status}` : `it answered ${status}, ${JSON.stringify(said)}`);
    this.status = status;
    this.code = code;
  }
}

/** An answer that breaks a limit or a rule. */
export class UnusableAnswer extends Error {
  override readonly name = "UnusableAnswer";
}

/**
 * A fetch for `@huggingface/hub`'s functions: the token goes to the endpoint and to nobody else, an answer
 * comes within a limit of bytes and one that is no success is thrown as HubStatus. A question has to be
 * answered in time and is asked twice; what is sent takes as long as it takes, and is sent once.
 */
export function hubFetch(settings: HubSettings): typeof fetch {
  let numQuestions = 0;
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if ((init?.method ?? "GET") !== "GET") return answer(url, init ?? {}, settings);
    if (++numQuestions > maxQuestions) {
      throw new UnusableAnswer(`it has more than ${maxQuestions} pages`);
    }
    const ask = (): Promise<Response> =>
      answer(url, { ...init, signal: AbortSignal.timeout(settings.answerTimeoutMs) }, settings);
    return ask().catch(async (error: unknown) => {
      if (!isPassing(error) || (error as Error).name === "TimeoutError") throw error;
      await delay(settings.retryPauseMs);
      return ask();
    });
  };
}

async function answer(url: URL, init: RequestInit, settings: HubSettings): Promise<Response> {
  const headers = headersFor(url, settings, init.headers);
  const response = await fetch(url, { ...init, headers });
  const body = await readWithin(response, maxAnswerBytes);
  if (!response.ok) throw statusOf(response, body);
  const { status } = response;
  return new Response(body.byteLength === 0 ? null : body, { status, headers: response.headers });
}

/**
 * The bytes of a file from `offset` on, each piece within the idle timeout. `@huggingface/hub` has a blob
 * for this, whose stream hides the status, the cause of a failure, and a server that ignores the range.
 *
 * @returns from where the bytes begin: 0 where the server sends the whole file anyway
 */
export async function openRange(
  url: string,
  offset: number,
  sizeBytes: number,
  settings: HubSettings,
): Promise<{ readonly start: number; readonly pieces: AsyncIterable<Uint8Array> }> {
  const idle = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const rearm = (): void => {
    clearTimeout(timer);
    timer = setTimeout(
      () => idle.abort(new Error(`nothing came for ${settings.idleTimeoutMs / 1000} s`)),
      settings.idleTimeoutMs,
    );
  };
  rearm();
  let response: Response;
  try {
    response = await fetch(url, {
      headers: headersFor(new URL(url), settings, {
        "accept-encoding": "identity",
        ...(offset === 0 ? {} : { range: `bytes=${offset}-${sizeBytes - 1}` }),
      }),
      signal: idle.signal,
    });
    if (!response.ok) throw statusOf(response, await readWithin(response, maxAnswerBytes));
  } catch (error) {
    clearTimeout(timer);
    throw error;
  }
  const isPart = response.status === 206;
  if (isPart && !contentStartsAt(response, offset)) {
    clearTimeout(timer);
    await response.body?.cancel();
    throw new UnusableAnswer(
      `it sent ${response.headers.get("content-range")}, not what was asked`,
    );
  }
  async function* pieces(): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of response.body ?? []) {
        rearm();
        yield piece as Uint8Array;
        // Writing takes its own time.
        rearm();
      }
    } finally {
      clearTimeout(timer);
    }
  }
  return { start: isPart ? offset : 0, pieces: pieces() };
}

const contentStartsAt = (response: Response, offset: number): boolean =>
  new RegExp(`^bytes ${offset}-`).test(response.headers.get("content-range") ?? "");

/** Node drops the token where a redirect leads to another origin, such as a store of large files. */
function headersFor(url: URL, settings: HubSettings, given: RequestInit["headers"]): Headers {
  const headers = new Headers(given);
  headers.delete("authorization");
  headers.set("user-agent", "lockstep");
  if (settings.token !== undefined && url.origin === new URL(settings.endpoint).origin) {
    headers.set("authorization", `Bearer ${settings.token}`);
  }
  return headers;
}

async function readWithin(
  response: Response,
  limitBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let numBytes = 0;
  for await (const part of response.body ?? []) {
    numBytes += (part as Uint8Array).byteLength;
    if (numBytes > limitBytes) {
      throw new UnusableAnswer(`an answer has more than the ${limitBytes} bytes that are read`);
    }
    parts.push(part as Uint8Array);
  }
  return new Uint8Array(Buffer.concat(parts));
}

function statusOf(response: Response, body: Uint8Array): HubStatus {
  const said = response.headers.get("x-error-message") ?? errorOf(new TextDecoder().decode(body));
  const code = response.headers.get("x-error-code") ?? undefined;
  return new HubStatus(response.status, code, said.slice(0, maxShownCharacters));
}

/** The hub answers `{"error": "..."}`; pages of a proxy say nothing to a person. */
function errorOf(text: string): string {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    return typeof error === "string" ? error : "";
  } catch {
    return "";
  }
}

/** Whether the same request may succeed in a moment. */
export function isPassing(error: unknown): boolean {
  if (error instanceof HubStatus) return error.status === 429 || error.status >= 500;
  return !(error instanceof UnusableAnswer) && !isLockstepError(error) && isNetworkError(error);
}

/** A failure of the catalogue for what came of asking about a model. */
export function explainFailure(
  error: unknown,
  model: HubModel,
  settings: HubSettings,
  looked: readonly string[],
): unknown {
  const { endpoint, token } = settings;
  const facts = { ...model, endpoint };
  const options = { cause: error };
  if (error instanceof UnusableAnswer || error instanceof SyntaxError) {
    return new LockstepError("E_HUB_RESPONSE", { ...facts, problem: error.message }, options);
  }
  if (error instanceof HubStatus) {
    const { status, code, message } = error;
    const isMissing = status === 404 || (status === 401 && code === "RepoNotFound");
    if (code === "RevisionNotFound") return new LockstepError("E_HUB_REVISION", facts, options);
    if (code === "GatedRepo") {
      const problem = `it is gated, so each reader has to accept its terms on ${endpoint}/${model.id} and show a token (${message})`;
      return new LockstepError("E_HUB_ACCESS", { ...facts, problem }, options);
    }
    if (isMissing) {
      const seen =
        token === undefined ? ", or it is private and no token was sent" : " for this token";
      const hub = `${endpoint} knows no such model${seen} (revision ${model.revision}; ${message})`;
      return new LockstepError("E_MODEL_NOT_FOUND", { name: model.id, looked, hub }, options);
    }
    if (status === 401 || status === 403) {
      const sent = token === undefined ? "no token was sent" : "the token was not accepted";
      const problem = `${sent} (${message})`;
      return new LockstepError("E_HUB_ACCESS", { ...facts, problem }, options);
    }
    return new LockstepError("E_HUB_UNREACHABLE", { ...facts, looked, reason: message }, options);
  }
  if (!isNetworkError(error)) return error;
  const reason = networkReason(error);
  return new LockstepError("E_HUB_UNREACHABLE", { ...facts, looked, reason }, options);
}

/** What a failed request says of the network; never what was sent. */
export function networkReason(error: unknown): string {
  if (!(error instanceof Error)) return "the request failed";
  if (error.name === "TimeoutError") return "it did not answer in time (HF_HUB_ETAG_TIMEOUT)";
  const { cause } = error;
  const inner = cause instanceof AggregateError ? (cause.errors[0] as unknown) : cause;
  if (inner instanceof Error) return inner.message === "" ? inner.name : inner.message;
  return error.message;
}

/** fetch throws a TypeError; a stream that breaks, one of undici's or the reason of an abort. */
function isNetworkError(error: unknown): boolean {
  if (!(error instanceof Error) || isLockstepError(error)) return false;
  return (
    error.name === "TimeoutError" ||
    error.name === "AbortError" ||
    error.message.startsWith("nothing came for ") ||
    (error instanceof TypeError && /fetch failed|terminated/.test(error.message)) ||
    /^(UND_ERR|ECONN|ENOTFOUND|EAI_|EPIPE|ETIMEDOUT)/.test(
      String((error as NodeJS.ErrnoException).code),
    )
  );
}
