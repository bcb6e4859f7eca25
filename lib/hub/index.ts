export { findSnapshot } from "./cache.js";
export { downloadSnapshot } from "./download-snapshot.js";
export { preparePush, pushDirectory, type PushTarget } from "./push.js";
export {
  checkRevision,
  defaultRevision,
  type HubModel,
  isHubId,
  repositoryFolder,
} from "./repository.js";
export { isWeights } from "./wanted-files.js";
export {
  type Environment,
  type HubSettings,
  hubCacheDirectory,
  hubSettings,
} from "./settings.js";
