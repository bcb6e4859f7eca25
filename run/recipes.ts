import { existsSync } from "node:fs";
import { type FileHandle, open, readdir, readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { stringify } from "yaml";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { likelyName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";

/** A configuration of `examples`, one a method. */
interface Recipe {
  readonly name: string;
  /** What it does, of its first comment. */
  readonly summary: string;
}

const folder = join(packageRoot, "examples");
const extension = ".yaml";

/** By name. */
export async function listRecipes(): Promise<Recipe[]> {
  const files = (await readdir(folder)).filter((name) => name.endsWith(extension)).sort();
  return Promise.all(
    files.map(async (file) => ({
      name: file.slice(0, -extension.length),
      summary: summaryOf(await readFile(join(folder, file), "utf8")),
    })),
  );
}

/** The first comment up to where its first clause ends. */
function summaryOf(text: string): string {
  const [comment = ""] = /^(?:#.*\n)+/.exec(text) ?? [];
  const words = comment.replace(/^#\s*/gm, "").replace(/\s+/g, " ").trim();
  return /^.*?(?=[:;]\s|\.(?:\s|$)|$)/.exec(words)?.[0] ?? "";
}

/** Writes a file that is whole or not there. @throws E_FILE_EXISTS, E_CHECKPOINT_WRITE, E_DISK_FULL */
async function writeNewFile(file: string, text: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(file, "wx");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw explainWriteError(error, file);
    throw new LockstepError("E_FILE_EXISTS", { file });
  }
  try {
    await handle.writeFile(text);
    await handle.sync();
  } catch (error) {
    await rm(file, { force: true });
    throw explainWriteError(error, file);
  } finally {
    await handle.close();
  }
}

/**
 * Writes a recipe into a new file. Where the directory in which it will run has no copy of the examples, its data are
 * named by where they are.
 *
 * @returns the examples' data that it names so, if any
 * @throws E_RECIPE_UNKNOWN, E_FILE_EXISTS, E_CHECKPOINT_WRITE, E_DISK_FULL
 */
export async function copyRecipe(name: string, file: string): Promise<string | undefined> {
  const names = (await listRecipes()).map((recipe) => recipe.name);
  if (!names.includes(name)) {
    const near = likelyName(name, names);
    throw new LockstepError("E_RECIPE_UNKNOWN", { name, near, names: names.join(", ") });
  }
  const text = await readFile(join(folder, `${name}${extension}`), "utf8");
  let moved: string | undefined;
  const placed = text.replace(/(?<=^dataset: |\bpath: )examples\/data\/[\w.-]+/gm, (data) => {
    if (existsSync(resolve(data))) return data;
    moved = join(packageRoot, data);
    // A path may need quotes.
    return stringify(moved, { lineWidth: 0 }).trim();
  });
  await writeNewFile(file, placed);
  return moved;
}
