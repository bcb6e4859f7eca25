import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { LockstepError } from "#lib/core/errors/index";
import { cacheDirectory } from "#lib/core/paths";

/** A config.json has some dozen short fields. */
const maxModelConfigBytes = 1 << 20;

type Environment = Readonly<Record<string, string | undefined>>;

/** A path wins over a name in the cache's `models/`. @throws E_MODEL_NOT_FOUND */
export async function findModelDirectory(
  nameOrPath: string,
  env: Environment = process.env,
): Promise<string> {
  const candidates = [resolve(nameOrPath)];
  // A name must not walk out of the cache.
  if (!nameOrPath.split(/[\\/]/).includes("..") && !nameOrPath.startsWith("/")) {
    candidates.push(join(cacheDirectory(env), "models", nameOrPath));
  }
  for (const directory of candidates) {
    const isDirectory = await stat(directory).then(
      (stats) => stats.isDirectory(),
      () => false,
    );
    if (isDirectory) return directory;
  }
  throw new LockstepError("E_MODEL_NOT_FOUND", { name: nameOrPath, looked: candidates });
}

/** A model directory's config.json. @throws E_FILE_NOT_FOUND, E_JSON_FILE */
export async function readModelConfig(directory: string): Promise<Record<string, unknown>> {
  const file = join(directory, "config.json");
  const parsed = await readJsonFile(file, "model configuration", maxModelConfigBytes);
  if (!isRecord(parsed)) {
    throw new LockstepError("E_JSON_FILE", { file, problem: "it is not an object" });
  }
  return parsed;
}
