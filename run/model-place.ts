import { existsSync, statSync } from "node:fs";
import { isAbsolute, join, relative, resolve } from "node:path";
import { describeAdapter, readAdapterBase } from "#lib/checkpoint/adapter-kind";
import { isAdapterDirectory } from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import { cacheDirectory } from "#lib/core/paths";
import { shellWord } from "#lib/core/shell-word";
import { hasTokenizer } from "#lib/data/index";
import { findModelDirectory, type ModelSearch } from "./model-directory.js";

/** Where the parts of a model lie: all in one directory, or in an adapter's and in its base model's. */
export interface ModelPlace {
  /** The one that was asked for. */
  readonly directory: string;
  /** Where config.json and the weights are. */
  readonly modelDirectory: string;
  /** Where the tokenizer is: the adapter's own, where it has one. */
  readonly tokenizerDirectory: string;
  /** The adapter, and its base as it was named. */
  readonly adapter?: { readonly directory: string; readonly base: string };
}

export interface ModelOptions {
  /** The base model of an adapter, where it is not the one that adapter_config.json names. */
  readonly base?: string | undefined;
  /** Of a model of the hub; main by default. */
  readonly revision?: string | undefined;
  /** What is being done, for a display. */
  readonly onDetail?: (detail: string) => void;
}

/**
 * Finds a model, or an adapter and its base.
 *
 * @throws E_MODEL_NOT_FOUND, E_ADAPTER_BASE, E_MODEL_DIRECTORY, and what reading adapter_config.json throws
 */
export async function findModel(
  nameOrPath: string,
  { base, revision, onDetail }: ModelOptions = {},
): Promise<ModelPlace> {
  const directory = await findModelDirectory(nameOrPath, searchFor(revision, onDetail));
  if (!isAdapterDirectory(directory)) {
    if (base === undefined) {
      return { directory, modelDirectory: directory, tokenizerDirectory: directory };
    }
    const problem = `${nameOrPath} is no adapter (it has no adapter_config.json), so that it has no base model`;
    throw new LockstepError("E_USAGE", { command: "--base", problem });
  }
  return findAdapter(directory, { base, ...(onDetail && { onDetail }) });
}

/** The same for what has to be an adapter. */
export async function findAdapter(
  directory: string,
  { base, onDetail }: Omit<ModelOptions, "revision"> = {},
): Promise<ModelPlace> {
  const found = await findBase(directory, base, onDetail);
  return {
    directory,
    modelDirectory: found.directory,
    tokenizerDirectory: hasTokenizer(directory) ? directory : found.directory,
    adapter: { directory, base: found.name },
  };
}

async function findBase(
  adapter: string,
  given: string | undefined,
  onDetail: ModelOptions["onDetail"],
): Promise<{ readonly name: string; readonly directory: string }> {
  const own = await readAdapterBase(adapter);
  const name = given ?? own.name;
  if (name === null) {
    const problem = "its adapter_config.json names no base model";
    throw new LockstepError("E_ADAPTER_BASE", { adapter, problem });
  }
  // Another base than the adapter's own has another history.
  const revision = given === undefined ? (own.revision ?? undefined) : undefined;
  const directory = await placeOfBase(adapter, name, searchFor(revision, onDetail));
  if (isAdapterDirectory(directory)) {
    const { what, obstacle } = await describeAdapter(directory);
    const way =
      obstacle === undefined
        ? "; merge that one into its own base first"
        : `, and cannot be merged: ${obstacle}`;
    const problem = `its base model ${name} is an adapter itself (${what})${way}`;
    throw new LockstepError("E_ADAPTER_BASE", { adapter, problem });
  }
  return { name, directory };
}

const searchFor = (
  revision: string | undefined,
  onDetail: ModelOptions["onDetail"],
): ModelSearch => ({
  ...(revision === undefined ? {} : { revision }),
  ...(onDetail === undefined ? {} : { onDetail }),
});

/** A relative path starts at the current directory, as in peft, or else at the adapter's own. */
async function placeOfBase(adapter: string, name: string, search: ModelSearch): Promise<string> {
  const beside = resolve(adapter, name);
  if (!isAbsolute(name) && !isDirectory(resolve(name)) && isDirectory(beside)) return beside;
  try {
    return await findModelDirectory(name, search);
  } catch (cause) {
    if (!(cause instanceof LockstepError) || cause.code !== "E_MODEL_NOT_FOUND") throw cause;
    const also = isAbsolute(name) ? "" : `, and there is no directory ${beside}`;
    const problem = `its base model was not found. ${cause.message.replace(/[.?]$/, "")}${also}`;
    throw new LockstepError("E_ADAPTER_BASE", { adapter, problem }, { cause });
  }
}

/**
 * What a saved adapter calls its base model, so that others find it: a hub's name as it was given, and
 * the absolute path of a directory, since a relative one starts wherever the reader is.
 *
 * @param directory where it was found
 */
export function findableName(nameOrPath: string, directory: string): string {
  if (directory === resolve(nameOrPath)) return directory;
  const isOfCache = !relative(join(cacheDirectory(), "models"), directory).startsWith("..");
  // Nobody else knows the names that models have in this cache, unless it is the hub's: OWNER/NAME.
  return isOfCache && !/^[\w.-]+\/[\w.-]+$/.test(nameOrPath) ? directory : nameOrPath;
}

/** @throws E_MODEL_IS_ADAPTER where training would have to start from an adapter */
export async function refuseAdapter(directory: string, nameOrPath: string): Promise<void> {
  if (!isAdapterDirectory(directory)) return;
  const { what, obstacle } = await describeAdapter(directory);
  const to = freeName(`${nameOrPath.replace(/[\\/]+$/, "")}-merged`);
  const way =
    obstacle === undefined
      ? `This makes one: bin/lockstep merge-adapter ${shellWord(nameOrPath)} ${shellWord(to)}`
      : `None can be made of it: ${obstacle}.`;
  throw new LockstepError("E_MODEL_IS_ADAPTER", { directory: nameOrPath, what, way });
}

/** A directory that is not there yet, so that the command can be typed as it is. */
function freeName(wanted: string): string {
  let name = wanted;
  for (let i = 2; existsSync(name); i++) name = `${wanted}-${i}`;
  return name;
}

const isDirectory = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
