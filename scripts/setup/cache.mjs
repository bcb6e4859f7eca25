// Where downloads and built tools live: outside the checkout, so that every checkout shares them.

import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** $LOCKSTEP_CACHE, else $XDG_CACHE_HOME/lockstep, else ~/.cache/lockstep. */
export function cacheRoot() {
  if (process.env.LOCKSTEP_CACHE) return resolve(process.env.LOCKSTEP_CACHE);
  if (process.env.XDG_CACHE_HOME) return resolve(process.env.XDG_CACHE_HOME, "lockstep");
  return join(homedir(), ".cache", "lockstep");
}
