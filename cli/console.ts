import { relative } from "node:path";
import { inspect } from "node:util";
import { isSecretKey, printChosen, printConfig } from "#lib/config/index";
import type { LoadedConfig, ResolvedConfig } from "#lib/config/index";
import { isLockstepError } from "#lib/core/errors/index";
import { chooseColor, chooseMode, type Display, startDisplay } from "./progress/display.js";
import { shellWord } from "#lib/core/shell-word";
import { printable } from "#lib/core/terminal-text";
import type { EventSource } from "#lib/wire/event-bus";

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
    resumeLines: (checkpoint) => resumeLines(loaded.config, checkpoint, process.argv),
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

/** How a person goes on from a checkpoint: the command that was given, with the checkpoint and without secrets. */
export function resumeLines(
  { save_only_model }: Pick<ResolvedConfig, "save_only_model">,
  checkpoint: string,
  [, program = "lockstep", ...args]: readonly string[],
): string[] {
  if (save_only_model) {
    return ["With save_only_model no run can go on from it: it holds no state of the optimizer."];
  }
  const secrets = new Set<string>();
  const kept = args.filter((argument, index) => {
    const before = args[index - 1] ?? "";
    const isValue = !argument.startsWith("--") && !before.includes("=");
    const [flag = ""] = (isValue ? before : argument).split("=");
    const key = flag.replace(/^--/, "").replaceAll("-", "_");
    if (!flag.startsWith("--")) return true;
    if (isSecretKey(key)) secrets.add(flag);
    return key !== "resume_from_checkpoint" && !isSecretKey(key);
  });
  const near = relative(process.cwd(), program);
  const shown = near.startsWith("..") ? program : near;
  const words = [shown, ...kept, "--resume_from_checkpoint", checkpoint];
  const lines = ["Go on with:", "", `  ${words.map(shellWord).join(" ")}`];
  if (secrets.size === 0) return lines;
  return [...lines, "", `What ${[...secrets].join(" and ")} was is not shown: give it again.`];
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
