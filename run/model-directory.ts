import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { LockstepError } from "#lib/core/errors/index";
import { expandHome } from "#lib/core/home-path";
import { cacheDirectory } from "#lib/core/paths";
import {
  checkRevision,
  defaultRevision,
  downloadSnapshot,
  type Environment,
  findSnapshot,
  type HubModel,
  hubSettings,
  isHubId,
  isWeights,
  repositoryFolder,
} from "#lib/hub/index";
import { withNearModel } from "./near-models.js";
import { printable } from "#lib/core/terminal-text";
import { setUpCommand } from "./setup-models.js";

/** A config.json has some dozen short fields. */
export const maxModelConfigBytes = 1 << 20;

export interface ModelSearch {
  readonly env?: Environment;
  /** Of a model of the hub; main by default. */
  readonly revision?: string;
  /** Token of the hub that was given for this run. */
  readonly token?: string | undefined;
  /** What is being done, for a display. */
  readonly onDetail?: (detail: string) => void;
  /** Whether the hub is asked for a model that is not on this machine; true by default. */
  readonly downloads?: boolean;
  /** Whether the model's weights are needed; true by default. */
  readonly weights?: boolean;
}

/**
 * The directory of a model: a path, a name in the cache's `models/`, a snapshot in the hub's cache, or one
 * that is fetched from the hub now.
 *
 * @throws E_MODEL_NOT_FOUND, E_PATH_HOME, and what downloadSnapshot throws
 */
export async function findModelDirectory(given: string, search: ModelSearch = {}): Promise<string> {
  const nameOrPath = expandHome(given);
  try {
    return await find(nameOrPath, search);
  } catch (error) {
    throw await withNearModel(error, nameOrPath, search.env ?? process.env);
  }
}

async function find(nameOrPath: string, search: ModelSearch): Promise<string> {
  const { env = process.env, revision = defaultRevision, onDetail = () => {} } = search;
  const candidates = [resolve(nameOrPath)];
  // A name must not walk out of the cache.
  if (!nameOrPath.split(/[\\/]/).includes("..") && !nameOrPath.startsWith("/")) {
    candidates.push(join(cacheDirectory(env), "models", nameOrPath));
  }
  for (const directory of candidates) {
    const stats = await stat(directory).catch(() => undefined);
    if (stats === undefined) continue;
    if (stats.isDirectory()) return withoutRevision(nameOrPath, directory, revision);
    const hub = "a file is there, and a model is a directory";
    throw new LockstepError("E_MODEL_NOT_FOUND", { name: nameOrPath, looked: candidates, hub });
  }
  const broughtBy = setUpCommand(nameOrPath);
  if (broughtBy !== undefined || !isHubId(nameOrPath)) {
    const hub =
      broughtBy === undefined
        ? "the hub was not asked, whose models are called NAME or ORGANISATION/NAME"
        : `\`${broughtBy}\` brings it`;
    throw new LockstepError("E_MODEL_NOT_FOUND", { name: nameOrPath, looked: candidates, hub });
  }
  return findInHub({ id: nameOrPath, revision }, candidates, { ...search, env, onDetail });
}

/** A revision that somebody asked for is never dropped. @throws E_CONFIG_CONFLICT */
function withoutRevision(name: string, directory: string, revision: string): string {
  if (revision === defaultRevision) return directory;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "model_name_or_path and model_revision",
    reason: `${name} is the directory ${directory}, which has no revision ${revision}`,
  });
}

async function findInHub(
  model: HubModel,
  candidates: readonly string[],
  search: ModelSearch & Required<Pick<ModelSearch, "env" | "onDetail">>,
): Promise<string> {
  checkRevision(model.revision);
  const settings = hubSettings(search.env, search.token);
  const { weights = true } = search;
  const snapshot = await findSnapshot(settings.cacheDirectory, model);
  const missing = snapshot?.missing.filter((name) => weights || !isWeights(name)) ?? [];
  if (snapshot !== undefined && missing.length === 0) {
    search.onDetail(`${model.id} is in the hub's cache, commit ${snapshot.commit}`);
    return snapshot.directory;
  }
  const looked = [...candidates, join(settings.cacheDirectory, repositoryFolder(model.id))];
  const found =
    snapshot === undefined
      ? ""
      : ` (there, ${snapshot.directory} lacks ${missing.slice(0, 5).join(", ")})`;
  const isForbidden = settings.offline !== undefined;
  if (!isForbidden && search.downloads !== false) {
    return downloadSnapshot(model, settings, search.onDetail, looked, { weights });
  }
  const why = isForbidden ? `, since ${settings.offline} forbids it` : "; a run asks it";
  const hub = `${settings.endpoint} was not asked for revision ${model.revision}${why}${found}`;
  throw new LockstepError("E_MODEL_NOT_FOUND", { name: model.id, looked, hub });
}

/** For commands whose result goes to standard output. */
export const detailOnStandardError = (detail: string): void => {
  process.stderr.write(`${printable(detail)}\n`);
};

/** A model directory's config.json. @throws E_FILE_NOT_FOUND, E_JSON_FILE */
export async function readModelConfig(directory: string): Promise<Record<string, unknown>> {
  const file = join(directory, "config.json");
  const parsed = await readJsonFile(file, "model configuration", maxModelConfigBytes);
  if (!isRecord(parsed)) {
    throw new LockstepError("E_JSON_FILE", { file, problem: "it is not an object" });
  }
  return parsed;
}
