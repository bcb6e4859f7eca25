/** One entry of the error catalogue. `D` is the record of facts that the message needs. */
export interface ErrorEntry<D> {
  /** What was expected, what came, and where: a whole sentence. */
  readonly message: (details: D) => string;
  /** What to do next: a whole sentence. */
  readonly hint: string;
  /** Whether the same call may succeed later without a change by a person. */
  readonly retryable: boolean;
}

/** Starts an entry; the type argument names the facts, so that a throw site cannot forget one. */
export function entry<D>(
  message: (details: D) => string,
  hint: string,
  options: { retryable?: boolean } = {},
): ErrorEntry<D> {
  return Object.freeze({ message, hint, retryable: options.retryable ?? false });
}
