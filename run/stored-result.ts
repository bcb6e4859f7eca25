import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { isConfigFile, isWeightsFile } from "#lib/checkpoint/atomic-save";
import { outputRecordFile, readOutputRecord } from "#lib/checkpoint/index";
import { assertWritable } from "#lib/checkpoint/write-guard";
import type { ResolvedConfig } from "#lib/config/index";
import type { ObjectStore } from "#lib/store/object-store";
import { storeOf } from "./open-store.js";
import { assertStoreHeld } from "./store-claim.js";
import { uploadFile } from "./store-files.js";

/** Puts the result, or some of its files, into the store too where there is one; what says that it is there, last. */
export async function storeResult(config: ResolvedConfig, only?: readonly string[]): Promise<void> {
  const store = await storeOf(config);
  if (store === undefined) return;
  await assertStoreHeld(store);
  const { output_dir: directory } = config;
  const files = (await readOutputRecord(directory))?.files ?? [];
  const upload = async (file: string): Promise<void> => {
    const path = join(directory, file);
    if (!existsSync(path)) return;
    assertWritable(path);
    await uploadFile(store, path, file);
  };
  for (const file of only ?? files) if (file !== outputRecordFile) await upload(file);
  if (only === undefined) await removeOtherWeights(store, directory, files);
  await upload(outputRecordFile);
}

/**
 * Weights of an earlier result under other names, in one file where there are several now, would be read in the place of
 * these; and so would a configuration of another kind.
 */
async function removeOtherWeights(
  store: ObjectStore,
  directory: string,
  files: readonly string[],
): Promise<void> {
  const isHere = (file: string): boolean => existsSync(join(directory, file));
  const weights = files.filter((file) => isWeightsFile(basename(file)) && isHere(file));
  const folders = new Set(weights.map((file) => dirname(file)));
  const others = (await store.list(""))
    .map(({ key }) => key)
    .filter((key) => isWeightsFile(basename(key)) || isConfigFile(basename(key)))
    .filter((key) => folders.has(dirname(key)) && !isHere(key));
  assertWritable(directory);
  await store.delete(others);
}
