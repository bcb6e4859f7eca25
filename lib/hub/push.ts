import type { Dirent } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { tasksFolder } from "#lib/core/task-heads";
import { isHubId } from "./repository.js";
import { HubStatus, hubFetch, networkReason } from "./requests.js";
import type { HubSettings } from "./settings.js";
import { isNamedTemplate, isPushed, isWeights, templatesFolder } from "./wanted-files.js";

/** Where a result goes. */
export interface PushTarget {
  /** ORGANISATION/NAME. */
  readonly id: string;
  readonly isPrivate: boolean | null;
}

/** What a push needs to be told. */
interface PushRequest {
  /** NAME or ORGANISATION/NAME; null: the directory's name, as transformers has it. */
  readonly modelId: string | null;
  readonly directory: string;
  readonly isPrivate: boolean | null;
}

/**
 * Asks the hub whose token this is: before a run begins, so that hours of training do not end at a token
 * that may not write.
 *
 * @throws E_HUB_TOKEN, E_CONFIG_INVALID, E_CONFIG_CONFLICT, E_HUB_UNREACHABLE
 */
export async function preparePush(
  { modelId, directory, isPrivate }: PushRequest,
  settings: HubSettings,
): Promise<PushTarget> {
  const name = modelId ?? basename(resolve(directory));
  const { endpoint } = settings;
  if (!isHubId(name)) {
    throw new LockstepError("E_CONFIG_INVALID", {
      key: "hub_model_id",
      expected: "NAME or ORGANISATION/NAME",
      got: `${JSON.stringify(name)}${modelId === null ? ", the name of output_dir" : ""}`,
      where: "",
    });
  }
  if (settings.offline !== undefined) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "push_to_hub and the environment",
      reason: `${settings.offline} forbids to talk to the hub`,
    });
  }
  const what = `A push to ${name} at ${endpoint}`;
  if (settings.token === undefined) {
    throw new LockstepError("E_HUB_TOKEN", { what, problem: "there is none" });
  }
  const owner = await ownerOf(what, name, settings);
  return { id: name.includes("/") ? name : `${owner}/${name}`, isPrivate };
}

/** The user or organisation of the token. */
async function ownerOf(what: string, name: string, settings: HubSettings): Promise<string> {
  const { whoAmI } = await import("@huggingface/hub");
  const { endpoint } = settings;
  try {
    // Its own check of tokens knows the prefix of one kind only; ours is set by the fetch.
    const who = await whoAmI({
      hubUrl: endpoint,
      fetch: hubFetch(settings),
      accessToken: undefined as unknown as string,
    });
    if (who.auth?.accessToken?.role === "read") {
      throw new LockstepError("E_HUB_TOKEN", {
        what,
        problem: "the role of the given one is read",
      });
    }
    if (typeof who.name === "string" && isHubId(who.name)) return who.name;
    throw new LockstepError("E_HUB_TOKEN", { what, problem: "the hub does not say whose it is" });
  } catch (error) {
    if (isLockstepError(error)) throw error;
    if (error instanceof HubStatus && (error.status === 401 || error.status === 403)) {
      const problem = `the given one was not accepted (${error.message})`;
      throw new LockstepError("E_HUB_TOKEN", { what, problem }, { cause: error });
    }
    const reason = error instanceof HubStatus ? error.message : networkReason(error);
    const facts = { id: name, revision: "main", endpoint, reason, looked: [] };
    throw new LockstepError("E_HUB_UNREACHABLE", facts, { cause: error });
  }
}

/**
 * Uploads a saved result as one commit: the model or adapter, its tokenizer and the run's history. Weights
 * of an earlier push that this one does not have are deleted in it, since a reader would take them.
 *
 * @param onDetail what is being done, for a display
 * @returns the address of the commit
 * @throws E_HUB_PUSH; the result stays where it is
 */
export async function pushDirectory(
  directory: string,
  target: PushTarget,
  settings: HubSettings,
  onDetail: (detail: string) => void,
): Promise<string> {
  const { endpoint } = settings;
  try {
    const names = await pushedFiles(directory);
    return await upload(directory, names, target, settings, onDetail);
  } catch (error) {
    const problem = error instanceof HubStatus ? explainStatus(error) : describeProblem(error);
    const facts = { id: target.id, endpoint, directory, problem };
    throw new LockstepError("E_HUB_PUSH", facts, { cause: error });
  }
}

/** Names of what is pushed, in order, with the models of tasks in their folders. */
export async function pushedFiles(directory: string): Promise<string[]> {
  const names = await filesOfModel(directory);
  if (!names.some(isWeights)) throw new Error(`there are no weights in ${directory}`);
  for (const { name, parentPath } of await directoriesIn(directory)) {
    if (name !== tasksFolder) continue;
    for (const task of await directoriesIn(join(parentPath, name))) {
      const inner = await filesOfModel(join(task.parentPath, task.name));
      names.push(...inner.map((file) => `${tasksFolder}/${task.name}/${file}`));
    }
  }
  return names;
}

async function filesOfModel(directory: string): Promise<string[]> {
  const names: string[] = [];
  for (const name of (await readdir(directory)).sort()) {
    if (isPushed(name) && (await stat(join(directory, name))).isFile()) names.push(name);
    if (name !== templatesFolder) continue;
    const templates = (await readdir(join(directory, name))).map((file) => `${name}/${file}`);
    names.push(...templates.filter(isNamedTemplate).sort());
  }
  return names;
}

async function directoriesIn(directory: string): Promise<Dirent[]> {
  const entries = await readdir(directory, { withFileTypes: true, encoding: "utf8" });
  return entries.filter((entry) => entry.isDirectory()).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Whether a reader would take a file of the repository for weights, of the model or of a task's. */
const isReadAsWeights = (path: string): boolean => {
  const [folder, , file, ...deeper] = path.split("/");
  const isOfTask = folder === tasksFolder && file !== undefined && deeper.length === 0;
  return isWeights(isOfTask ? file : path);
};

async function upload(
  directory: string,
  names: readonly string[],
  { id, isPrivate }: PushTarget,
  settings: HubSettings,
  onDetail: (detail: string) => void,
): Promise<string> {
  const { commitIter, createRepo, listFiles } = await import("@huggingface/hub");
  const repo = { type: "model", name: id } as const;
  const hubUrl = settings.endpoint;
  onDetail(`pushing to ${id} at ${hubUrl}`);
  try {
    await createRepo({
      ...{ repo, hubUrl, fetch: hubFetch(settings) },
      accessToken: undefined as unknown as string,
      ...(isPrivate === null ? {} : { visibility: isPrivate ? "private" : "public" }),
    });
  } catch (error) {
    // It is there already.
    if (!(error instanceof HubStatus && error.status === 409)) throw error;
  }
  const stale: string[] = [];
  const listed = listFiles({ repo, hubUrl, recursive: true, fetch: hubFetch(settings) });
  for await (const { path, type } of listed) {
    if (type === "file" && isReadAsWeights(path) && !names.includes(path)) stale.push(path);
  }
  const commit = commitIter({
    ...{ repo, hubUrl, fetch: hubFetch(settings), title: "Upload a model trained by Lockstep" },
    // Plain uploads of large files, which every server of the hub's shape has.
    useXet: false,
    operations: [
      ...names.map((path) => ({
        operation: "addOrUpdate" as const,
        path,
        content: pathToFileURL(join(resolve(directory), path)),
      })),
      ...stale.map((path) => ({ operation: "delete" as const, path })),
    ],
  });
  const told = new Set<string>();
  for (;;) {
    const step = await commit.next();
    if (step.done === true) {
      const url: unknown = step.value?.commit.url;
      // Whatever the server says, what is printed is an address.
      return typeof url === "string" && URL.canParse(url) ? new URL(url).href : `${hubUrl}/${id}`;
    }
    if (step.value.event !== "fileProgress" || step.value.state !== "uploading") continue;
    const { path } = step.value;
    if (!told.has(path))
      onDetail(`pushing to ${id}: ${path} (${told.size + 1} of ${names.length})`);
    told.add(path);
  }
}

function explainStatus({ status, message }: HubStatus): string {
  const why = status === 403 ? ": the token may not write there" : "";
  return `${message}${why}`;
}

function describeProblem(error: unknown): string {
  return networkReason(error).replace(/[.\s]+$/, "");
}
