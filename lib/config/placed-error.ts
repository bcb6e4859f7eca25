import { isLockstepError, LockstepError } from "#lib/core/errors/index";

/** What is said of one key, without its place. */
interface Unplaced {
  readonly key: string;
  readonly where: "";
}

const isUnplaced = (details: unknown): details is Unplaced =>
  typeof details === "object" &&
  details !== null &&
  "where" in details &&
  details.where === "" &&
  "key" in details &&
  typeof details.key === "string";

/**
 * An error of one key with the key's place, where what found it had only values.
 *
 * @param placeOf "file:line" or "flag --key"; "" where nobody gave the key
 */
export function placed(error: unknown, placeOf: (key: string) => string): unknown {
  if (!isLockstepError(error)) return error;
  const { code, details } = error;
  const isOfConfiguration = code === "E_CONFIG_INVALID" || code === "E_CONFIG_UNSUPPORTED";
  if (!isOfConfiguration || !isUnplaced(details)) return error;
  const where = placeOf(details.key);
  if (where === "") return error;
  return new LockstepError(code, { ...details, where } as never, { cause: error.cause });
}
