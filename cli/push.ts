import { expandHome } from "#lib/core/home-path";
import { printable } from "#lib/core/terminal-text";
import { hubSettings, preparePush, pushDirectory } from "#lib/hub/index";
import { readCommandLine, usageOf } from "./command-line.js";

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

/** @throws E_USAGE */
function parse(args: string[]) {
  const fail = usageOf("push");
  const { values, positionals } = readCommandLine(args, { private: { type: "boolean" } }, fail);
  const [directory, modelId, ...rest] = positionals;
  if (directory === undefined || modelId === undefined || rest.length > 0) {
    return fail("it takes a directory and the id of a repository");
  }
  return { directory: expandHome(directory), modelId, isPrivate: values.private ?? null };
}
