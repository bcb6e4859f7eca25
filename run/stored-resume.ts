import { join } from "node:path";
import {
  checkedFiles,
  checksumsFile,
  ownFolder,
  piecesFile,
  readCheckpointSums,
} from "#lib/checkpoint/checked-files";
import { sha256 } from "#lib/checkpoint/checksums";
import { OptimizerStateReader } from "#lib/checkpoint/index";
import { checkpointRecordFile } from "#lib/checkpoint/run-record";
import { storedFiles } from "#lib/checkpoint/stored-checkpoint";
import { LockstepError } from "#lib/core/errors/index";
import { splitStoreUrl } from "#lib/store/location";
import { configFile, stateFile } from "./checkpoint-files.js";
import type { ResumePoint, StoreKeys } from "./resume.js";
import { storeAt } from "./open-store.js";
import { withFiles } from "./store-files.js";

const smallFiles = [checkpointRecordFile, stateFile, configFile];

/**
 * Opens a checkpoint of a store: its small files are compared with their checksums, the others have to be there, and
 * ranges of them are read, and compared, when they are asked for.
 *
 * @throws E_NO_CHECKPOINT, E_CHECKPOINT_DAMAGED, E_CHECKPOINT_STORE
 */
export async function openStoredCheckpoint(
  url: string,
  config: StoreKeys,
  read: (
    directory: string,
    files: string,
    openOptimizer: () => Promise<OptimizerStateReader>,
  ) => Promise<ResumePoint>,
): Promise<ResumePoint> {
  const { above, name } = splitStoreUrl(url);
  const store = await storeAt(above, config);
  const start = `${name}/`;
  const keys = [...smallFiles, checksumsFile, piecesFile].map((file) => `${start}${file}`);
  return withFiles(store, keys, async (local) => {
    const files = join(local, name);
    const all = await readCheckpointSums(url, files);
    const none = (problem: string) =>
      new LockstepError("E_NO_CHECKPOINT", { directory: url, problem });
    if (all === undefined) throw none("it does not exist, or is not whole");
    const { sums } = all;
    if (!sums.has(stateFile)) {
      throw none(`it holds no state of a run in ${ownFolder}/ (save_only_model)`);
    }
    const damaged = (file: string, problem: string) =>
      new LockstepError("E_CHECKPOINT_DAMAGED", { directory: url, file, problem });
    const present = new Set((await store.list(start)).map(({ key }) => key));
    for (const file of sums.keys()) {
      if (!present.has(`${start}${file}`)) throw damaged(file, "is missing");
    }
    for (const file of smallFiles) {
      const sum = sums.get(file);
      if (sum === undefined) throw damaged(file, `has no checksum in ${checksumsFile}`);
      if ((await sha256(join(files, file))) !== sum) throw damaged(file, "has a wrong checksum");
    }
    const stored = storedFiles(store, `${start}${ownFolder}/`);
    return read(url, files, async () =>
      OptimizerStateReader.open(`${url}/${ownFolder}`, checkedFiles(stored, all, url)),
    );
  });
}
