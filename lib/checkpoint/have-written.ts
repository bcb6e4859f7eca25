import type { SavedFile, WrittenPlace } from "#lib/core/saved-files";

/**
 * Has a file written by the process that keeps what is in it.
 *
 * @param file its path, as that of the others beside it
 * @param save called with the place; undefined: that process cannot write there
 * @returns whether it is written
 */
export type HaveWritten = (
  file: string,
  save: (place: WrittenPlace) => Promise<SavedFile | undefined>,
) => Promise<boolean>;

/** Folders below a checkpoint, or below a result: of an average, of tasks. */
const modelFile = /^(?:[^/]+\/){0,3}model(?:-\d{5}-of-\d{5})?\.safetensors$/;
const stateFile = /^lockstep\/optimizer-\d{5}-of-\d{5}\.safetensors$/;

/** Whether a shard may write there: a file of its own, of a checkpoint or a result that is being written. */
export function isShardPlace(place: WrittenPlace, kind: "state" | "model"): boolean {
  const [, name = ""] =
    "file" in place
      ? (/^\/(?:.*\/)?\.(?:checkpoint-\d+|files)\.tmp-[^/]+\/(.+)$/.exec(place.file) ?? [])
      : (/^checkpoint-\d+\/(.+)$/.exec(place.key) ?? []);
  const path = "file" in place ? place.file : place.key;
  return (kind === "state" ? stateFile : modelFile).test(name) && !path.split("/").includes("..");
}
