import { readFile, stat } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { stageFiles } from "#lib/checkpoint/atomic-save";
import { checksumsFile, ownFolder } from "#lib/checkpoint/checked-files";
import { listFiles, readChecksums } from "#lib/checkpoint/checksums";
import {
  type CheckpointRecord,
  checkpointName,
  type OwnedCheckpoint,
  readCheckpointRecord,
} from "#lib/checkpoint/index";
import { checkpointRecordFile } from "#lib/checkpoint/run-record";
import { bySavedTime } from "#lib/checkpoint/rotation";
import { assertWritable } from "#lib/checkpoint/write-guard";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectStore } from "#lib/store/object-store";
import {
  type CheckpointPlace,
  type SavedCheckpoint,
  type WriteCheckpoint,
} from "./checkpoint-files.js";
import { assertStoreHeld, conditionOfNew } from "./store-claim.js";
import { uploadFile, withFiles } from "./store-files.js";

/** Beside a checkpoint that is being stored or removed: what has it and no list of checksums is a leftover. */
const unfinishedFile = `${ownFolder}/unfinished`;
/** Larger files travel in parts, without a condition. */
const maxNewBytes = 16 << 20;

/** Of checkpoints that were listed, by where they are. */
const records = new Map<
  string,
  { readonly tag: string; readonly record: CheckpointRecord | undefined }
>();

/**
 * Checkpoints below a prefix. The list of checksums is stored last: without it there is no checkpoint. Whoever may not
 * write into the output directory any more may change nothing here either: a store refuses nobody itself.
 */
export class StoredCheckpoints implements CheckpointPlace {
  readonly #store: ObjectStore;
  /** Where files are written before they are stored. */
  readonly #outputDir: string;

  constructor(store: ObjectStore, outputDir: string) {
    this.#store = store;
    this.#outputDir = outputDir;
  }

  directoryOf(name: string): string {
    return this.#store.url(name);
  }

  async list(): Promise<readonly OwnedCheckpoint[]> {
    const found: OwnedCheckpoint[] = [];
    for (const { key, tag } of await this.#store.list("checkpoint-")) {
      const [, step] = /^checkpoint-(\d{1,15})\/lockstep\/checksums\.json$/.exec(key) ?? [];
      if (step === undefined) continue;
      const name = checkpointName(Number(step));
      const directory = this.directoryOf(name);
      const record = await this.#recordOf(directory, name, tag);
      found.push({ step: Number(step), directory, record, isOurs: true });
    }
    return found.sort(bySavedTime);
  }

  /** Of a checkpoint whose list of checksums has this tag: it says whether it is the one that was read before. */
  async #recordOf(
    directory: string,
    name: string,
    tag: string,
  ): Promise<CheckpointRecord | undefined> {
    const known = records.get(directory);
    if (tag !== "" && known?.tag === tag) return known.record;
    const record = await this.record(name).catch((error: unknown) => {
      if ((error as { code?: unknown }).code === "E_CHECKPOINT_STORE") throw error;
      return undefined;
    });
    records.set(directory, { tag, record });
    return record;
  }

  async record(name: string): Promise<CheckpointRecord | undefined> {
    return withFiles(this.#store, [`${name}/${checkpointRecordFile}`], (directory) =>
      readCheckpointRecord(join(directory, name)),
    );
  }

  async save(
    name: string,
    write: WriteCheckpoint,
    previous: string | undefined,
  ): Promise<SavedCheckpoint> {
    const store = this.#store;
    let [bytes, sharedBytes] = [0, 0];
    await stageFiles(join(this.#outputDir, name), async (temporary) => {
      await this.remove(this.directoryOf(name));
      await store.put(`${name}/${unfinishedFile}`, new Uint8Array());
      const keyOf = (file: string): string => `${name}/${relative(temporary, file)}`;
      const written = await write(temporary, (file) => {
        assertWritable(file);
        return { store: store.settings, key: keyOf(file) };
      });
      for (const { sizeBytes } of written.values()) bytes += sizeBytes;
      await this.#requireSizes(name, new Map([...written].map(([path, of]) => [keyOf(path), of])));
      const before = previous === undefined ? undefined : await this.#sumsOf(basename(previous));
      const sums = await readChecksums(temporary, checksumsFile);
      await assertStoreHeld(store);
      const files = (await listFiles(temporary)).filter((file) => file !== checksumsFile);
      for (const file of [...files, checksumsFile]) {
        const path = join(temporary, file);
        assertWritable(path);
        const { size } = await stat(path);
        const isShared = sums?.get(file) !== undefined && before?.get(file) === sums.get(file);
        const copied = isShared && (await this.#copy(basename(previous ?? ""), name, file));
        if (copied) sharedBytes += size;
        else await this.#uploadNew(path, keyOf(path), file === checksumsFile);
        bytes += size;
      }
      // Beside a list of checksums it says nothing.
      await store.delete([keyOf(join(temporary, unfinishedFile))]).catch(() => {});
    });
    return { directory: this.directoryOf(name), bytes, sharedBytes };
  }

  /** Others may have written them, who told what they are. @throws E_CHECKPOINT_STORE */
  async #requireSizes(
    name: string,
    written: ReadonlyMap<string, { readonly sizeBytes: number }>,
  ): Promise<void> {
    const there = new Map(
      (await this.#store.list(`${name}/`)).map(({ key, sizeBytes }) => [key, sizeBytes]),
    );
    for (const [key, { sizeBytes }] of written) {
      const found = there.get(key);
      if (found === sizeBytes) continue;
      const problem = `${sizeBytes} bytes were written, and ${found ?? "none"} are there`;
      throw new LockstepError("E_CHECKPOINT_STORE", { place: this.#store.url(key), problem });
    }
  }

  async sweep(): Promise<void> {
    assertWritable(this.#outputDir);
    await assertStoreHeld(this.#store);
    await this.#store.abortUploads("checkpoint-");
    const keys = new Set((await this.#store.list("checkpoint-")).map(({ key }) => key));
    for (const key of keys) {
      const [name = "", ...file] = key.split("/");
      if (file.join("/") !== unfinishedFile || keys.has(`${name}/${checksumsFile}`)) continue;
      if (/^checkpoint-\d{1,15}$/.test(name)) await this.remove(this.directoryOf(name));
    }
  }

  /** The list of checksums goes first, so that nobody takes what is left for whole. */
  async remove(directory: string): Promise<void> {
    const name = basename(directory);
    const ours = join(this.#outputDir, name);
    assertWritable(ours);
    await this.#store.abortUploads(`${name}/`);
    const keys = (await this.#store.list(`${name}/`)).map(({ key }) => key);
    if (keys.length === 0) return;
    await assertStoreHeld(this.#store);
    const mark = `${name}/${unfinishedFile}`;
    await this.#store.put(mark, new Uint8Array());
    const manifest = `${name}/${checksumsFile}`;
    const rest = keys.filter((key) => key !== manifest && key !== mark);
    for (const some of [keys.filter((key) => key === manifest), rest, [mark]]) {
      assertWritable(ours);
      await this.#store.delete(some);
    }
  }

  /**
   * Stores a small file where there is none of its name: whoever was stopped amid a save and goes on later takes the
   * place of nothing that was stored since.
   */
  async #uploadNew(path: string, key: string, isLast: boolean): Promise<void> {
    const store = this.#store;
    if (isLast) await assertStoreHeld(store);
    const { size } = await stat(path);
    if (size > maxNewBytes) return uploadFile(store, path, key);
    const bytes = await readFile(path);
    if (await store.putIf(key, bytes, conditionOfNew(store))) return;
    const there = await store.get(key, maxNewBytes);
    if (there !== undefined && bytes.equals(there)) return;
    await assertStoreHeld(store);
    const problem = "another process stored it at the same time";
    throw new LockstepError("E_CHECKPOINT_STORE", { place: store.url(key), problem });
  }

  async #copy(from: string, to: string, file: string): Promise<boolean> {
    return this.#store.copy(`${from}/${file}`, `${to}/${file}`).then(
      () => true,
      () => false,
    );
  }

  async #sumsOf(name: string): Promise<ReadonlyMap<string, string> | undefined> {
    return withFiles(this.#store, [`${name}/${checksumsFile}`], (directory) =>
      readChecksums(join(directory, name), checksumsFile),
    );
  }
}
