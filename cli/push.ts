import { parseArgs } from "node:util";
import type { ResolvedConfig } from "#lib/core/config/index";
import { hubTokenOf } from "#lib/core/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { hubSettings, preparePush, pushDirectory, type PushTarget } from "#lib/hub/index";
import { printable } from "./progress/text.js";

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

/** Uploads a run's saved result; says what it does. @throws E_HUB_PUSH */
export type PushResult = (onDetail: (detail: string) => void) => Promise<string>;

/**
 * Where `push_to_hub` asks for it, whether the result can be pushed, asked before the run costs anything.
 *
 * @throws E_HUB_TOKEN and others of preparePush
 */
export async function pushOf(config: ResolvedConfig): Promise<PushResult | undefined> {
  if (!config.push_to_hub) return undefined;
  const settings = hubSettings(process.env, hubTokenOf(config));
  const target: PushTarget = await preparePush(
    {
      modelId: config.hub_model_id,
      directory: config.output_dir,
      isPrivate: config.hub_private_repo,
    },
    settings,
  );
  return (onDetail) => pushDirectory(config.output_dir, target, settings, onDetail);
}
