import { readdir } from "node:fs/promises";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { likelyName } from "#lib/core/edit-distance";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { cacheDirectory } from "#lib/core/paths";
import { type Environment, hubCacheDirectory } from "#lib/hub/index";
import { setUpModels } from "./setup-models.js";

/** The error of a search for a model, with the name that may have been meant. */
export async function withNearModel(
  error: unknown,
  name: string,
  env: Environment,
): Promise<unknown> {
  if (!isLockstepError(error)) return error;
  const { code } = error;
  const isOfName =
    code === "E_MODEL_NOT_FOUND" || code === "E_HUB_UNREACHABLE" || code === "E_HUB_ACCESS";
  if (!isOfName) return error;
  const near = likelyName(name, await modelsHere(name, env));
  if (near === undefined || near === name) return error;
  const details = { ...(error as LockstepError<typeof code>).details, near };
  return new LockstepError<typeof code>(code, details, { cause: error });
}

/** Names under which models are found: in the cache, in the hub's cache, beside the path that was given. */
async function modelsHere(name: string, env: Environment): Promise<string[]> {
  const own = join(cacheDirectory(env), "models");
  const names: string[] = [];
  for (const model of await directoriesOf(own)) {
    names.push(model);
    for (const inside of await directoriesOf(join(own, model))) names.push(`${model}/${inside}`);
  }
  for (const folder of await directoriesOf(hubCacheDirectory(env))) {
    const [kind, ...parts] = folder.split("--");
    if (kind === "models") names.push(parts.join("/"));
  }
  const parent = isAbsolute(name) ? dirname(name) : dirname(`./${name}`).replace(/^\.\//, "");
  for (const beside of await directoriesOf(resolve(parent))) {
    names.push(parent === "." ? beside : join(parent, beside));
  }
  return [...names, ...setUpModels];
}

async function directoriesOf(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
    .map((entry) => entry.name)
    .filter((name) => !name.startsWith("."));
}
