import { link, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { removeDirectoryAtomically, saveAtomically } from "#lib/checkpoint/atomic-save";
import { checksumsFile } from "#lib/checkpoint/checked-files";
import { listFiles, readChecksums, sha256 } from "#lib/checkpoint/checksums";
import {
  type CheckpointRecord,
  listOwnedCheckpoints,
  type OwnedCheckpoint,
  readCheckpointRecord,
} from "#lib/checkpoint/index";
import type { ResolvedConfig } from "#lib/config/index";
import {
  type CheckpointPlace,
  type SavedCheckpoint,
  type WriteCheckpoint,
} from "./checkpoint-files.js";
import { storeOf } from "./open-store.js";
import { StoredCheckpoints } from "./stored-checkpoints.js";

export async function checkpointPlace(config: ResolvedConfig): Promise<CheckpointPlace> {
  const store = await storeOf(config);
  return store === undefined
    ? checkpointDirectories(config.output_dir)
    : new StoredCheckpoints(store, config.output_dir);
}

export const checkpointDirectories = (outputDir: string): CheckpointPlace =>
  new CheckpointDirectories(outputDir);

/** Smaller files are not worth a link, bytes. */
const minSharedBytes = 4096;

class CheckpointDirectories implements CheckpointPlace {
  readonly #outputDir: string;

  constructor(outputDir: string) {
    this.#outputDir = outputDir;
  }

  directoryOf(name: string): string {
    return join(this.#outputDir, name);
  }

  async list(): Promise<readonly OwnedCheckpoint[]> {
    return listOwnedCheckpoints(this.#outputDir);
  }

  async record(name: string): Promise<CheckpointRecord | undefined> {
    return readCheckpointRecord(this.directoryOf(name));
  }

  async save(
    name: string,
    write: WriteCheckpoint,
    previous: string | undefined,
  ): Promise<SavedCheckpoint> {
    const directory = this.directoryOf(name);
    let [bytes, sharedBytes] = [0, 0];
    await saveAtomically(directory, async (temporary) => {
      await write(temporary, undefined);
      if (previous !== undefined) sharedBytes = await shareFiles(temporary, previous);
      for (const file of await listFiles(temporary)) {
        bytes += (await stat(join(temporary, file))).size;
      }
    });
    return { directory, bytes, sharedBytes };
  }

  async remove(directory: string): Promise<void> {
    await removeDirectoryAtomically(directory);
  }

  /** Every save does. */
  async sweep(): Promise<void> {}
}

/** Puts links in the place of files that are in another checkpoint already. @returns their bytes */
async function shareFiles(directory: string, other: string): Promise<number> {
  const [here, there] = [
    await readChecksums(directory, checksumsFile),
    await readChecksums(other, checksumsFile),
  ];
  let bytes = 0;
  for (const [file, sum] of here ?? []) {
    if (there?.get(file) !== sum) continue;
    const [path, shared] = [join(directory, file), join(other, file)];
    const { size } = await stat(path);
    if (size < minSharedBytes) continue;
    try {
      // It may have been changed since.
      if ((await sha256(shared)) !== sum) continue;
      await link(shared, `${path}.link`);
      await rename(`${path}.link`, path);
      bytes += size;
    } catch {
      // A file system without links, or another one: the file stays as it was written.
    }
  }
  return bytes;
}
