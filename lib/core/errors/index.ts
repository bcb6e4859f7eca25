import { checkpointErrors } from "./checkpoint.js";
import { clusterErrors } from "./cluster.js";
import { configErrors } from "./config.js";
import { dataErrors } from "./data.js";
import type { ErrorEntry } from "./define.js";
import { graphErrors } from "./graph.js";
import { hubErrors } from "./hub.js";
import { natsErrors } from "./nats.js";
import { queueErrors } from "./queue.js";
import { reducerErrors } from "./reducer.js";
import { securityErrors } from "./security.js";
import { systemErrors } from "./system.js";

/** Every error that Lockstep raises on purpose, by code. `docs/errors.md` lists the same codes. */
export const errorCatalogue = {
  ...systemErrors,
  ...configErrors,
  ...hubErrors,
  ...checkpointErrors,
  ...dataErrors,
  ...graphErrors,
  ...clusterErrors,
  ...securityErrors,
  ...reducerErrors,
  ...natsErrors,
  ...queueErrors,
} as const;

export type ErrorCode = keyof typeof errorCatalogue;

export type ErrorDetails<C extends ErrorCode> =
  (typeof errorCatalogue)[C] extends ErrorEntry<infer D> ? D : never;

/**
 * Longest message, characters: a name or a value of a hostile file may have as many as the file, and a message is
 * printed, sent and kept in logs.
 */
const maxMessageChars = 4_096;

/** Both ends of a message that is too long: what it is about, and what is wrong with it. */
function shortened(message: string): string {
  if (message.length <= maxMessageChars) return message;
  const left = message.length - maxMessageChars;
  const half = maxMessageChars / 2;
  return `${message.slice(0, half)} [... ${left} characters ...] ${message.slice(-half)}`;
}

/** The same symbol in every copy of this package that a process has loaded. */
const brand = Symbol.for("lockstep.LockstepError");

/** An error of the catalogue: `message` tells what happened, `hint` what to do next. */
export class LockstepError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "LockstepError";
  readonly code: C;
  readonly details: ErrorDetails<C>;
  readonly hint: string;
  readonly retryable: boolean;
  readonly [brand] = true;

  constructor(code: C, details: ErrorDetails<C>, options?: { cause?: unknown }) {
    // The catalogue's union of entries cannot be called with a union of details; the signature above pairs them.
    const catalogueEntry = errorCatalogue[code] as unknown as ErrorEntry<ErrorDetails<C>>;
    super(shortened(catalogueEntry.message(details)), options);
    this.code = code;
    this.details = details;
    this.hint = catalogueEntry.hint;
    this.retryable = catalogueEntry.retryable;
  }
}

/** Whether it is an error of the catalogue, of this copy of the package or of another one. */
export function isLockstepError(error: unknown): error is LockstepError {
  return typeof error === "object" && error !== null && brand in error;
}
