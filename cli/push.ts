import { parseArgs } from "node:util";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { printable } from "#lib/core/terminal-text";
import { hubSettings, preparePush, pushDirectory } from "#lib/hub/index";

/** `lockstep push`. Returns the exit code; errors of the catalogue are thrown. */
export async function pushCommand(args: string[]): Promise<number> {
  const { directory, modelId, isPrivate } = parse(args);
  const settings = hubSettings();
  const target = await preparePush({ modelId, directory, isPrivate }, settings);
  const url = await pushDirectory(directory, target, settings, (detail) => {
    process.stderr.write(`${printable(detail)}\n`);
  });
  process.stdout.write(`Pushed ${directory} to ${printable(url)}\n`);
  return 0;
}

function parse(args: string[]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { private: { type: "boolean" } },
    });
    const [directory, modelId, ...rest] = positionals;
    if (directory === undefined || modelId === undefined || rest.length > 0) {
      throw new TypeError("it takes a directory and the id of a repository");
    }
    return { directory: expandHome(directory), modelId, isPrivate: values.private ?? null };
  } catch (error) {
    // parseArgs throws a TypeError for an unknown option.
    if (!(error instanceof TypeError)) throw error;
    throw new LockstepError("E_USAGE", { command: "push", problem: error.message });
  }
}
