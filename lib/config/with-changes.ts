import { copyGivenKeys } from "./given-keys.js";
import type { ResolvedConfig } from "./resolve.js";
import { hubTokenOf, keepHubToken } from "./secrets.js";

/** A configuration with other values of some keys, and with all that is kept beside it. */
export function withChanges<const Changes extends Partial<ResolvedConfig>>(
  config: ResolvedConfig,
  changes: Changes,
): ResolvedConfig & Changes {
  const changed = Object.freeze({ ...config, ...changes });
  keepHubToken(changed, hubTokenOf(config) ?? null);
  copyGivenKeys(config, changed);
  return changed;
}
