import type { ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { parseStoreUrl } from "#lib/store/location";
import { ObjectStore } from "#lib/store/object-store";

const stores = new Map<string, Promise<ObjectStore>>();

/** The store that a configuration names; undefined: checkpoints are in the output directory. */
export async function storeOf(config: ResolvedConfig): Promise<ObjectStore | undefined> {
  return config.checkpoint_store === null ? undefined : storeAt(config.checkpoint_store, config);
}

/** @throws E_CONFIG_INVALID for what is no URL of a store */
export async function storeAt(
  url: string,
  config: Pick<ResolvedConfig, "s3_endpoint" | "s3_region">,
): Promise<ObjectStore> {
  const location = parseStoreUrl(url);
  if (location === undefined) {
    const expected = "s3://BUCKET or s3://BUCKET/PREFIX";
    throw new LockstepError("E_CONFIG_INVALID", {
      ...{ key: "checkpoint_store", expected, got: JSON.stringify(url), where: "" },
    });
  }
  const settings = {
    ...location,
    ...(config.s3_endpoint === null ? {} : { endpoint: config.s3_endpoint }),
    ...(config.s3_region === null ? {} : { region: config.s3_region }),
  };
  const name = JSON.stringify(settings);
  const opened = stores.get(name) ?? ObjectStore.open(settings);
  stores.set(name, opened);
  return opened;
}
