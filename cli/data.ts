import { likelyName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { previewCommand } from "./data-preview.js";
import { usages } from "./usage.js";

const commands: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = {
  preview: previewCommand,
};

/** `lockstep data`. Returns the exit code. @throws E_USAGE */
export async function dataCommand(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    process.stderr.write(usages.data);
    return 2;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command !== undefined) return command(rest);
  const names = Object.keys(commands);
  const near = likelyName(name, names);
  const problem =
    near === undefined
      ? `there is no ${JSON.stringify(name)}; there is ${names.join(", ")}`
      : `there is no ${JSON.stringify(name)}; did you mean ${near}?`;
  throw new LockstepError("E_USAGE", { command: "data", problem });
}
