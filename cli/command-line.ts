import { parseArgs, type ParseArgsConfig } from "node:util";
import { likelyName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";

type Options = NonNullable<ParseArgsConfig["options"]>;

/** How a command refuses its arguments. */
export const usageOf =
  (command: string) =>
  (problem: string): never => {
    throw new LockstepError("E_USAGE", { command, problem });
  };

/**
 * Reads a command's options, and what stands beside them.
 *
 * @param fail throws E_USAGE with a problem
 * @throws E_USAGE for what is no option, with the one that may have been meant, and for a value too many or too few
 */
export function readCommandLine<const Own extends Options>(
  args: readonly string[],
  options: Own,
  fail: (problem: string) => never,
  { allowPositionals = true }: { readonly allowPositionals?: boolean } = {},
) {
  try {
    return parseArgs({ args: [...args], allowPositionals, options });
  } catch (error) {
    return fail(problemOf(error, Object.keys(options)));
  }
}

/** What is wrong with a command line, in fewer words than node's. */
function problemOf(error: unknown, names: readonly string[]): string {
  const message = error instanceof Error ? error.message : String(error);
  const [, unknown] = /^Unknown option '([^']*)'/.exec(message) ?? [];
  if (unknown !== undefined) {
    const near = likelyName(unknown.replace(/^-+/, ""), names);
    return `there is no option ${unknown}${near === undefined ? "" : `; did you mean --${near}?`}`;
  }
  const [, option, kind] =
    /^Option '(\S+)[^']*' argument (missing|is ambiguous)/.exec(message) ?? [];
  if (option === undefined) return message.replace(/\.?(\n[^]*)?$/, "");
  const dashed =
    kind === "missing" ? "" : `; one that begins with a dash is given as ${option}=VALUE`;
  return `${option} takes a value${dashed}`;
}
