import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The directory that holds package.json, proto/ and dist/, from sources and from the build alike. */
export const packageRoot: string = (() => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json"))) directory = dirname(directory);
  return directory;
})();

/** What a person types to bring the engine or a model: in a checkout, and where npm installed the package. */
export const setUpCommandLine: string = packageRoot.split(sep).includes("node_modules")
  ? "npx lockstep setup"
  : "node scripts/setup.mjs";

/** Where the set-up links the engine. */
export const engineDirectory: string = join(packageRoot, "dist", "engine");

/**
 * Where downloads, imported models and what is known of devices live: $LOCKSTEP_CACHE,
 * $XDG_CACHE_HOME/lockstep or ~/.cache/lockstep.
 */
export function cacheDirectory(
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const own = env["LOCKSTEP_CACHE"];
  if (own !== undefined && own !== "") return resolve(own);
  const xdg = env["XDG_CACHE_HOME"];
  return join(xdg !== undefined && xdg !== "" ? xdg : join(homedir(), ".cache"), "lockstep");
}
