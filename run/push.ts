import { hubTokenOf, type ResolvedConfig } from "#lib/config/index";
import { hubSettings, preparePush, pushDirectory, type PushTarget } from "#lib/hub/index";

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
