import { resolve, sep } from "node:path";

const guards = new Map<object, { readonly paths: readonly string[]; readonly check: () => void }>();

/**
 * Makes every write of this process into a directory ask first: what saves, replaces and removes there
 * calls `assertWritable` right before it changes something.
 *
 * @param paths names of the directory, absolute
 * @param check throws where the process may not write there any more
 * @returns ends it
 */
export function guardWrites(paths: readonly string[], check: () => void): () => void {
  const key = {};
  guards.set(key, { paths, check });
  return () => void guards.delete(key);
}

/** @throws what the guard of a directory that holds `path` throws, E_OUTPUT_DIR_LOST */
export function assertWritable(path: string): void {
  for (const { check } of guardsOf(path)) check();
}

/** Whether this process alone writes where `path` is. */
export const isGuarded = (path: string): boolean => guardsOf(path).length > 0;

const guardsOf = (path: string) => {
  const absolute = resolve(path);
  return [...guards.values()].filter(({ paths }) =>
    paths.some((each) => absolute === each || absolute.startsWith(each + sep)),
  );
};
