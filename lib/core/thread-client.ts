import { parentPort, type Worker } from "node:worker_threads";
import {
  type ErrorCode,
  type ErrorDetails,
  isLockstepError,
  LockstepError,
} from "./errors/index.js";

// Calls from one thread of a process to another: replies by number, errors that keep what they say, and the
// thread's own notices in between.

/** An error as a message can hold it. */
export interface PortableError {
  /** Of the catalogue; "" for another error. */
  readonly code: ErrorCode | "";
  readonly details: unknown;
  readonly message: string;
  readonly stack: string;
  /** Whether trying again could help: not for an error of the catalogue that says otherwise. */
  readonly retryable: boolean;
}

/** A thread's answer to a call; `id` 0 is its start. */
type ThreadMessage =
  | { readonly type: "reply"; readonly id: number; readonly value: unknown }
  | { readonly type: "error"; readonly id: number; readonly error: PortableError }
  | { readonly type: "notice"; readonly notice: unknown };

interface ThreadRequest {
  readonly id: number;
  readonly call: unknown;
}

const startId = 0;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A thread that `serveThread` runs in, seen from outside.
 *
 * @typeParam Ready what it tells of itself when it has started
 */
export class ThreadClient<Ready, Call, Value, Notice = never> {
  readonly #thread: Worker;
  readonly #toError: (error: PortableError) => Error;
  readonly #pending = new Map<number, Pending>();
  readonly #onNotice: ((notice: Notice) => void)[] = [];
  readonly #onDeath: ((error: Error) => void)[] = [];
  readonly #ready: Promise<Ready>;
  #nextId = startId + 1;
  #death: Error | undefined;
  #isClosing = false;

  /**
   * @param errors.failed the error of a call, by what the thread threw
   * @param errors.died what calls end with when the thread is no more: it threw, or ended with an exit code
   */
  constructor(
    thread: Worker,
    errors: {
      readonly failed: (error: PortableError) => Error;
      readonly died: (cause: Error | number) => Error;
    },
  ) {
    this.#thread = thread;
    this.#toError = errors.failed;
    this.#ready = this.#answerTo(startId) as Promise<Ready>;
    thread.on("message", (message: ThreadMessage) => this.#receive(message));
    thread.on("error", (error) => this.#end(errors.died(error)));
    thread.on("exit", (code) => this.#end(errors.died(code)));
  }

  /** Resolves when the thread has started. @throws what `errors` makes; the thread is ended then */
  async started(): Promise<Ready> {
    try {
      return await this.#ready;
    } catch (error) {
      await this.#thread.terminate();
      throw error;
    }
  }

  onNotice(callback: (notice: Notice) => void): void {
    this.#onNotice.push(callback);
  }

  /** Called once if the thread dies without `close`. */
  onDeath(callback: (error: Error) => void): void {
    this.#onDeath.push(callback);
  }

  async call(call: Call): Promise<Value> {
    if (this.#death !== undefined) throw this.#death;
    const request: ThreadRequest = { id: this.#nextId++, call };
    const answer = this.#answerTo(request.id);
    this.#thread.postMessage(request);
    return (await answer) as Value;
  }

  /** Ends the thread after a last call, whatever becomes of it. */
  async close(last: Call): Promise<void> {
    this.#isClosing = true;
    if (this.#death === undefined) await this.call(last).catch(() => {});
    await this.#thread.terminate();
  }

  async #answerTo(id: number): Promise<unknown> {
    return new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
  }

  #receive(message: ThreadMessage): void {
    if (message.type === "notice") {
      for (const callback of this.#onNotice) callback(message.notice as Notice);
      return;
    }
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.type === "reply") pending?.resolve(message.value);
    else pending?.reject(this.#toError(message.error));
  }

  #end(error: Error): void {
    if (this.#death !== undefined) return;
    this.#death = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    if (!this.#isClosing) for (const callback of this.#onDeath) callback(error);
  }
}

/** The other half: answers the calls of a `ThreadClient`. To be called once, in a worker thread. */
export async function serveThread<Ready, Call, Value, Notice = never>(
  start: (notify: (notice: Notice) => void) => Promise<{
    readonly ready: Ready;
    readonly handle: (call: Call) => Promise<Value> | Value;
    /** No call is answered after it. */
    readonly isLast: (call: Call) => boolean;
  }>,
): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error("serveThread is for worker threads");
  const post = (message: ThreadMessage): void => port.postMessage(message);
  const fail = (id: number, error: unknown): void =>
    post({ type: "error", id, error: toPortable(error) });
  try {
    const server = await start((notice) => post({ type: "notice", notice }));
    const answer = async (id: number, call: Call): Promise<void> => {
      try {
        post({ type: "reply", id, value: await server.handle(call) });
      } catch (error) {
        fail(id, error);
      }
      if (server.isLast(call)) port.close();
    };
    port.on("message", ({ id, call }: ThreadRequest) => void answer(id, call as Call));
    post({ type: "reply", id: startId, value: server.ready });
  } catch (error) {
    fail(startId, error);
  }
}

function toPortable(error: unknown): PortableError {
  const { message, stack = "" } = error instanceof Error ? error : { message: String(error) };
  return isLockstepError(error)
    ? { code: error.code, details: error.details, message, stack, retryable: error.retryable }
    : { code: "", details: undefined, message, stack, retryable: true };
}

/** The error of the catalogue that was thrown; undefined for another one. */
export const catalogued = ({ code, details }: PortableError): LockstepError | undefined =>
  code === "" ? undefined : new LockstepError(code, details as ErrorDetails<ErrorCode>);
