import { inspect } from "node:util";
import { printChosen, printConfig } from "#lib/core/config/index";
import type { LoadedConfig } from "#lib/core/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import { chooseColor, chooseMode, type Display, startDisplay } from "./progress/display.js";
import { printable } from "./progress/text.js";
import type { EventSource } from "./progress/display.js";

/** Flags of every command that are not part of a job. */
export interface ConsoleFlags {
  readonly jsonLogs: boolean;
  readonly verbose: boolean;
}

/** Takes the console's own flags out of the arguments. */
export function takeConsoleFlags(args: readonly string[]): {
  readonly flags: ConsoleFlags;
  readonly rest: string[];
} {
  const is = (argument: string, name: string): boolean =>
    argument.replaceAll("_", "-") === `--${name}`;
  return {
    flags: {
      jsonLogs: args.some((argument) => is(argument, "json-logs")),
      verbose: args.some((argument) => is(argument, "verbose")),
    },
    rest: args.filter((argument) => !is(argument, "json-logs") && !is(argument, "verbose")),
  };
}

/** The display that suits standard output, after the warnings and the configuration. */
export function openConsole(bus: EventSource, loaded: LoadedConfig, flags: ConsoleFlags): Display {
  const stream = process.stdout;
  const isTerminal = stream.isTTY === true;
  const display = startDisplay(bus, {
    mode: chooseMode({
      isTerminal,
      jsonLogs: flags.jsonLogs,
      plain: loaded.config.disable_tqdm === true,
      term: process.env.TERM,
    }),
    stream,
    color: chooseColor(isTerminal, process.env),
    nowMs: () => performance.timeOrigin + performance.now(),
  });
  if (flags.jsonLogs) {
    stream.write(
      `${JSON.stringify({ time: new Date().toISOString(), type: "config", config: loaded.config })}\n`,
    );
  } else {
    // A person sees what was chosen; the whole of it is in output_dir/lockstep.yaml, and in a log.
    const shown = isTerminal ? printChosen(loaded.config) : printConfig(loaded.config);
    for (const line of shown.trimEnd().split("\n")) display.print(line);
  }
  for (const warning of loaded.warnings) display.note(`warning: ${warning}`);
  return display;
}

/** Code, message and hint on standard error; the stack only with --verbose. */
export function printError(error: unknown, flags: ConsoleFlags): void {
  const write = (text: string): void => {
    process.stderr.write(`${text}\n`);
  };
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  if (flags.jsonLogs) {
    const facts = isLockstepError(error)
      ? { code: error.code, message: error.message, hint: error.hint }
      : { code: "E_UNEXPECTED", message: error instanceof Error ? error.message : String(error) };
    write(JSON.stringify({ time: new Date().toISOString(), type: "error", ...facts }));
  } else if (isLockstepError(error)) {
    write(`${error.code}: ${printable(error.message)}\n  ${error.hint}`);
  } else {
    write(`Unexpected error: ${error instanceof Error ? error.message : String(error)}`);
    write("  This is a defect of Lockstep or of the machine; --verbose shows where it happened.");
  }
  if (!flags.verbose) return;
  write(stack);
  for (let cause = error instanceof Error ? error.cause : undefined; cause !== undefined; ) {
    write(`caused by: ${cause instanceof Error ? (cause.stack ?? cause.message) : inspect(cause)}`);
    cause = cause instanceof Error ? cause.cause : undefined;
  }
}
