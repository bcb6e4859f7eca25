import { LockstepError } from "#lib/core/errors/index";
import { describeKeys, loadConfig, printConfig } from "#lib/core/config/index";

export const configUsage = `Usage: lockstep config CONFIG.yaml [--key value ...]
       lockstep config --keys

Prints the resolved configuration, or every key with its type, default and meaning.
`;

/** `lockstep config`. Returns the exit code. */
export async function configCommand(args: readonly string[]): Promise<number> {
  if (args.length === 1 && args[0] === "--keys") {
    process.stdout.write(`${describeKeys()}\n`);
    return 0;
  }
  if (args.length === 0) {
    throw new LockstepError("E_USAGE", { command: "config", problem: "a file is expected" });
  }
  const { config, warnings } = await loadConfig(args);
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stdout.write(printConfig(config));
  return 0;
}
