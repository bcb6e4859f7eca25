import { mkdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import {
  type CachedRepository,
  cachedRepository,
  linkFile,
  readShards,
  writeAbsent,
  writeRef,
} from "./cache.js";
import { downloadBlob, hasBlob, type HubFile } from "./download-blob.js";
import { DownloadProgress } from "./download-progress.js";
import { commitPattern, type HubModel } from "./repository.js";
import { hubFetch, explainFailure, UnusableAnswer } from "./requests.js";
import type { HubSettings } from "./settings.js";
import {
  adapterConfigFile,
  adapterWeightsFile,
  configFile,
  isNamedTemplate,
  isSafeFileName,
  isWeights,
  maxBytesOf,
  smallFileNames,
  templatesFolder,
  weightsFile,
  weightsIndexFile,
} from "./wanted-files.js";

/** Files at the top of a repository; those with many checkpoints have some hundred. */
const maxListedFiles = 20_000;

/**
 * Brings the files that are needed of a model into the cache, in huggingface_hub's layout: configuration,
 * tokenizer and safetensors, never their copies for other programs. The configuration comes last, so
 * that a download which ends in the middle never looks whole.
 *
 * @param onDetail what is being done, for a display
 * @param weights false for the files beside them alone; what is there then is no whole model to a later
 *   search for one
 * @param looked where the model was looked for before, for messages
 * @returns the snapshot's directory
 * @throws E_MODEL_NOT_FOUND, E_HUB_UNREACHABLE, E_HUB_ACCESS, E_HUB_REVISION, E_HUB_RESPONSE,
 *   E_HUB_NO_SAFETENSORS, E_HUB_CHECKSUM, E_HUB_CACHE
 */
export async function downloadSnapshot(
  model: HubModel,
  settings: HubSettings,
  onDetail: (detail: string) => void,
  looked: readonly string[],
  { weights = true } = {},
): Promise<string> {
  const repository = cachedRepository(settings.cacheDirectory, model.id);
  try {
    onDetail(`asking ${settings.endpoint} for ${model.id}, revision ${model.revision}`);
    const { commit, files } = await listRepository(model, settings);
    const wanted = weights ? files : new Map([...files].filter(([name]) => !isWeights(name)));
    refuseWithoutWeights(model, settings, files);
    await downloadFiles(model, repository, commit, wanted, settings, onDetail);
    await writeRef(repository, model.revision, commit);
    return repository.snapshot(commit);
  } catch (error) {
    throw explainWrite(error, repository) ?? explainFailure(error, model, settings, looked);
  }
}

interface Listing {
  readonly commit: string;
  /** By name. */
  readonly files: ReadonlyMap<string, HubFile>;
}

async function listRepository(model: HubModel, settings: HubSettings): Promise<Listing> {
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const { id, revision } = model;
  const { endpoint } = settings;
  const common = { hubUrl: endpoint, fetch: hubFetch(settings) };
  const info = await modelInfo({ ...common, name: id, revision, additionalFields: ["sha"] });
  const commit: unknown = info.sha;
  if (typeof commit !== "string" || !commitPattern.test(commit)) {
    throw new UnusableAnswer("it names no commit");
  }
  const files = new Map<string, HubFile>();
  let numListed = 0;
  const repo = { type: "model", name: id } as const;
  const list = async (path?: string): Promise<void> => {
    let hasTemplates = false;
    const where = path === undefined ? {} : { path };
    for await (const entry of listFiles({ ...common, repo, revision: commit, ...where })) {
      if (++numListed > maxListedFiles) {
        throw new UnusableAnswer(`its listing has more than ${maxListedFiles} entries`);
      }
      const file = checkEntry(entry);
      if (file === undefined) {
        if (path === undefined && entry.path === templatesFolder) hasTemplates = true;
        continue;
      }
      if (path !== undefined && !isNamedTemplate(file.name)) continue;
      const name = file.name.split("/").map(encodeURIComponent).join("/");
      files.set(file.name, { ...file, url: `${endpoint}/${id}/resolve/${commit}/${name}` });
    }
    if (hasTemplates) await list(templatesFolder);
  };
  await list();
  return { commit, files };
}

/** An entry of a listing, which may hold anything; undefined for a directory. */
function checkEntry(entry: unknown): Omit<HubFile, "url"> | undefined {
  const { type, path, size, oid, lfs } = (entry ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof path !== "string" || !isSafeFileName(path)) {
    throw new UnusableAnswer(`it lists a file ${JSON.stringify(path)?.slice(0, 200)}`);
  }
  if (type !== "file") return undefined;
  const large = (lfs ?? {}) as Readonly<Record<string, unknown>>;
  const hash = lfs === undefined || lfs === null ? oid : large["oid"];
  const sizeBytes = lfs === undefined || lfs === null ? size : (large["size"] ?? size);
  if (typeof hash !== "string" || !/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(hash)) {
    throw new UnusableAnswer(`it lists ${path} without a hash`);
  }
  if (typeof sizeBytes !== "number" || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw new UnusableAnswer(`it lists ${path} without a size`);
  }
  return { name: path, sizeBytes, hash };
}

async function downloadFiles(
  model: HubModel,
  repository: CachedRepository,
  commit: string,
  files: ReadonlyMap<string, HubFile>,
  settings: HubSettings,
  onDetail: (detail: string) => void,
): Promise<void> {
  const snapshot = repository.snapshot(commit);
  await mkdir(snapshot, { recursive: true });
  const present = (names: readonly string[]): HubFile[] =>
    names.flatMap((name) => files.get(name) ?? []);
  await writeAbsent(
    repository.absent(commit),
    smallFileNames.filter((name) => !files.has(name)),
  );

  const fetchAll = async (wanted: readonly HubFile[]): Promise<void> => {
    for (const { name, sizeBytes } of wanted) {
      if (sizeBytes > maxBytesOf(name)) {
        throw new UnusableAnswer(
          `${name} has ${sizeBytes} bytes, and ${maxBytesOf(name)} are read`,
        );
      }
    }
    await checkSpace(repository, wanted);
    const progress = new DownloadProgress(model.id, wanted, onDetail);
    for (const file of wanted) {
      const blob = join(repository.blobs, file.hash);
      await downloadBlob(file, blob, model, settings, progress.hooksFor(file));
      await linkFile(snapshot, file.name, blob);
      progress.done(file);
    }
  };
  // Alone, since it says which files of weights there are.
  const isSharded = !files.has(weightsFile) && files.has(weightsIndexFile);
  if (isSharded) await fetchAll(present([weightsIndexFile]));
  const shards = isSharded ? await readShards(join(snapshot, weightsIndexFile)) : [];
  const lacking = shards.find((name) => !files.has(name));
  if (lacking !== undefined) {
    throw new UnusableAnswer(`${weightsIndexFile} names ${lacking}, which is not there`);
  }
  const configs = [configFile, adapterConfigFile];
  await fetchAll(
    present([
      ...smallFileNames.filter((name) => !configs.includes(name)),
      ...[...files.keys()].filter(isNamedTemplate),
      ...(files.has(weightsFile) ? [weightsFile] : shards),
      adapterWeightsFile,
      ...configs,
    ]),
  );
}

/** @throws E_HUB_NO_SAFETENSORS, E_HUB_RESPONSE for a repository that is no model */
function refuseWithoutWeights(
  { id, revision }: HubModel,
  { endpoint }: HubSettings,
  files: ReadonlyMap<string, HubFile>,
): void {
  const isModel = files.has(configFile) && (files.has(weightsFile) || files.has(weightsIndexFile));
  if (isModel || (files.has(adapterConfigFile) && files.has(adapterWeightsFile))) return;
  throw new LockstepError("E_HUB_NO_SAFETENSORS", {
    id,
    revision,
    endpoint,
    has: whatItHas(files),
  });
}

/** Instead of a model: a part of a sentence. */
function whatItHas(files: ReadonlyMap<string, HubFile>): string {
  if (files.has(weightsFile) || files.has(weightsIndexFile)) return "it has no config.json";
  const others = [...files.keys()].filter((name) =>
    /\.(bin|gguf|h5|onnx|msgpack|pt|pth|safetensors)$/.test(name),
  );
  if (others.length === 0) return `none of its ${files.size} files holds weights`;
  const more = others.length > 5 ? ` and ${others.length - 5} more` : "";
  return `it has ${others.slice(0, 5).join(", ")}${more}, but neither ${weightsFile} nor its index`;
}

/** A full disk is told before hours of waiting. @throws E_HUB_CACHE */
async function checkSpace(repository: CachedRepository, wanted: readonly HubFile[]): Promise<void> {
  let neededBytes = 0;
  for (const file of wanted) {
    if (!(await hasBlob(file, join(repository.blobs, file.hash)))) neededBytes += file.sizeBytes;
  }
  const { bavail, bsize } = await statfs(repository.directory);
  if (neededBytes <= bavail * bsize) return;
  const problem = `${neededBytes} bytes are needed, and ${bavail * bsize} are free`;
  throw new LockstepError("E_HUB_CACHE", { path: repository.directory, problem });
}

function explainWrite(
  error: unknown,
  { directory }: CachedRepository,
): LockstepError<"E_HUB_CACHE"> | undefined {
  const { code, message } = (error ?? {}) as NodeJS.ErrnoException;
  if (
    isLockstepError(error) ||
    !/^(EACCES|EPERM|EROFS|ENOSPC|EDQUOT|ENOTDIR|EIO|EISDIR)$/.test(code ?? "")
  ) {
    return undefined;
  }
  return new LockstepError("E_HUB_CACHE", { path: directory, problem: message }, { cause: error });
}
