import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { randomBytes } from "node:crypto";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { LockstepError } from "#lib/core/errors/index";
import { commitPattern, type HubModel, repositoryFolder } from "./repository.js";
import {
  adapterConfigFile,
  adapterWeightsFile,
  configFile,
  maxBytesOf,
  shardsOf,
  smallFileNames,
  tokenizerFile,
  weightsFile,
  weightsIndexFile,
} from "./wanted-files.js";

/**
 * A model's folder in the cache, laid out by huggingface_hub, so that each finds what the other fetched:
 *
 *   refs/main                      the commit of a branch or tag
 *   blobs/HASH                     a file's content, by its git or SHA-256 hash; HASH.incomplete on the way
 *   snapshots/COMMIT/config.json   a link to a blob
 *   .no_exist/COMMIT/NAME          a file that the commit does not have
 */
export interface CachedRepository {
  readonly directory: string;
  readonly blobs: string;
  readonly snapshot: (commit: string) => string;
  readonly absent: (commit: string) => string;
}

export function cachedRepository(cacheDirectory: string, id: string): CachedRepository {
  const directory = join(cacheDirectory, repositoryFolder(id));
  return {
    directory,
    blobs: join(directory, "blobs"),
    snapshot: (commit) => join(directory, "snapshots", commit),
    absent: (commit) => join(directory, ".no_exist", commit),
  };
}

interface FoundSnapshot {
  readonly directory: string;
  readonly commit: string;
  /** Files that are needed and not there; empty for a whole one. */
  readonly missing: readonly string[];
}

/** What the cache has of a model's revision. */
export async function findSnapshot(
  cacheDirectory: string,
  { id, revision }: HubModel,
): Promise<FoundSnapshot | undefined> {
  const repository = cachedRepository(cacheDirectory, id);
  const commit = commitPattern.test(revision)
    ? revision
    : await readRef(join(repository.directory, "refs", revision));
  if (commit === undefined) return undefined;
  const directory = repository.snapshot(commit);
  if (!existsSync(directory)) return undefined;
  return { directory, commit, missing: await missingFiles(repository, commit) };
}

async function readRef(file: string): Promise<string | undefined> {
  const isSmall = await stat(file).then(
    (stats) => stats.isFile() && stats.size <= 256,
    () => false,
  );
  if (!isSmall) return undefined;
  const commit = (await readFile(file, "utf8")).trim();
  return commitPattern.test(commit) ? commit : undefined;
}

/** Links whose blob is gone, and files of an interrupted download, are missing. */
async function missingFiles(repository: CachedRepository, commit: string): Promise<string[]> {
  const directory = repository.snapshot(commit);
  const has = (name: string): boolean => existsSync(join(directory, name));
  const listed = await listedFiles(repository, commit);
  const missing = [...listed].filter((name) => smallFileNames.includes(name) && !has(name));
  if (has(adapterConfigFile) && has(adapterWeightsFile) && !has(configFile)) return missing;
  if (!has(configFile)) missing.push(configFile);
  if (!has(tokenizerFile) && !existsSync(join(repository.absent(commit), tokenizerFile))) {
    missing.push(tokenizerFile);
  }
  if (has(weightsFile)) return [...new Set(missing)];
  if (!has(weightsIndexFile)) return [...new Set(missing), weightsFile];
  const shards = await readShards(join(directory, weightsIndexFile));
  return [...new Set(missing), ...shards.filter((name) => !has(name))];
}

/** The listing of the commit that huggingface_hub's snapshot_download keeps, where it is there. */
async function listedFiles(
  { directory }: CachedRepository,
  commit: string,
): Promise<ReadonlySet<string>> {
  const file = join(directory, "trees", `${commit}.json`);
  if (!existsSync(file)) return new Set();
  const tree = await readJsonFile(file, "listing", maxBytesOf(weightsIndexFile)).catch(() => null);
  const files = isRecord(tree) ? tree["files"] : undefined;
  return new Set(isRecord(files) ? Object.keys(files) : []);
}

/** The shards that an index names. @throws E_WEIGHTS_INDEX */
export async function readShards(file: string): Promise<readonly string[]> {
  const index = await readJsonFile(file, "weight index", maxBytesOf(weightsIndexFile));
  const shards = shardsOf(index);
  if (typeof shards !== "string") return shards;
  throw new LockstepError("E_WEIGHTS_INDEX", { file, problem: shards });
}

/** Links a snapshot's file to its blob; the link appears at once, or not at all. */
export async function linkFile(snapshot: string, name: string, blob: string): Promise<void> {
  const link = join(snapshot, name);
  await mkdir(dirname(link), { recursive: true });
  const temporary = `${link}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`;
  try {
    try {
      await symlink(relative(dirname(link), blob), temporary);
    } catch (error) {
      // Some network file systems have no links; huggingface_hub copies there too.
      if (!["EPERM", "ENOTSUP", "ENOSYS"].includes((error as NodeJS.ErrnoException).code ?? "")) {
        throw error;
      }
      await copyFile(blob, temporary);
    }
    await rename(temporary, link);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Notes which of the wanted files the commit does not have, so that nobody asks again. */
export async function writeAbsent(directory: string, names: readonly string[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const name of names) await writeFile(join(directory, name), "");
}

/** Writes which commit a branch or tag is. */
export async function writeRef(
  { directory }: CachedRepository,
  revision: string,
  commit: string,
): Promise<void> {
  if (revision === commit) return;
  const file = join(directory, "refs", revision);
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`;
  await writeFile(temporary, commit);
  await rename(temporary, file);
}
