import { isLockstepError, LockstepError } from "./errors/index.js";

/**
 * What the machine refuses to whoever opens, writes, listens or starts something, as errors of the catalogue: a full
 * disk or quota, a limit of open files, a process that cannot be started. Others pass.
 *
 * @param where what was worked on, for errors that name no path
 */
export function explainSystemError(error: unknown, where?: string): unknown {
  if (isLockstepError(error) || !(error instanceof Error)) return error;
  const { code, path, syscall = "" } = error as NodeJS.ErrnoException;
  const place = path ?? where;
  if (syscall.startsWith("spawn") && code !== "ENOENT") {
    const program = path ?? syscall.replace(/^spawn ?/, "");
    return new LockstepError(
      "E_PROCESS_START",
      { program, problem: error.message },
      { cause: error },
    );
  }
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return new LockstepError(
        "E_DISK_FULL",
        { file: place ?? "a file", ...(code === "EDQUOT" ? { isQuota: true } : {}) },
        { cause: error },
      );
    case "EMFILE":
    case "ENFILE":
      return new LockstepError(
        "E_TOO_MANY_FILES",
        { what: place ?? `A file or connection (${syscall})`, isMachine: code === "ENFILE" },
        { cause: error },
      );
    default:
      return error;
  }
}
