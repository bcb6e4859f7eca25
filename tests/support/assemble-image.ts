import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join, posix } from "node:path";
import { packageRoot } from "#lib/core/paths";
import { isInContext, parseCopy, parseRun, type Stage } from "./dockerfile.js";
import { runProgram } from "./run-program.js";

/**
 * Does on this machine what a Dockerfile tells a container engine to do, as far as it concerns our own
 * files: COPY copies (from the context, as .dockerignore leaves it, or an earlier stage), `npm ci` and
 * `npm prune` link the packages of this checkout that they would install, `rm` removes, and
 * `node scripts/build.mjs` runs. `find` would delete from this checkout, through those links, and is left
 * out. Anything else is an error.
 *
 * @param directory an empty directory; a stage lies in a folder of it, numbered from 0
 * @returns the last stage's folder, as its root directory `/`
 */
export async function assembleImage(
  stages: readonly Stage[],
  dockerignore: string,
  directory: string,
): Promise<string> {
  const roots = new Map<string, string>();
  let root = "";
  for (const [index, stage] of stages.entries()) {
    root = join(directory, String(index));
    if (stage.name !== "") roots.set(stage.name, root);
    let workdir = "/";
    for (const { keyword, text } of stage.instructions) {
      if (keyword === "WORKDIR") {
        workdir = posix.resolve(workdir, text);
        mkdirSync(join(root, workdir), { recursive: true });
      } else if (keyword === "COPY") {
        const { from, sources, destination } = parseCopy(text);
        const origin = from === undefined ? packageRoot : roots.get(from);
        if (origin === undefined) throw new Error(`no stage ${from}`);
        for (const source of sources) {
          const target = posix.resolve(workdir, destination);
          const file = destination.endsWith("/")
            ? posix.join(target, posix.basename(source))
            : target;
          cpSync(join(origin, source), join(root, file), {
            recursive: true,
            verbatimSymlinks: true,
            filter: (path) =>
              from !== undefined || isInContext(dockerignore, path.slice(packageRoot.length + 1)),
          });
        }
      } else if (keyword === "RUN") {
        for (const command of parseRun(text)) await execute(command, join(root, workdir), root);
      }
    }
  }
  return root;
}

async function execute(command: string, workdir: string, root: string): Promise<void> {
  const [program, ...words] = command.split(/\s+/);
  if (program === "npm") {
    linkPackages(workdir, words[0] === "prune");
  } else if (command === "node scripts/build.mjs") {
    const { code, stderr } = await runProgram(process.execPath, words, { cwd: workdir });
    if (code !== 0) throw new Error(`${command}: ${stderr}`);
  } else if (program === "mkdir") {
    mkdirSync(join(root, words.at(-1) ?? ""), { recursive: true });
  } else if (program === "rm") {
    const { code, stderr } = await runProgram("rm", words, { cwd: workdir });
    if (code !== 0) throw new Error(`${command}: ${stderr}`);
  } else if (program !== "chown" && program !== "find") {
    throw new Error(`Cannot do: ${command}`);
  }
}

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>;
}

/** Links each top-level package that the lock file names; without those of development if pruned. */
function linkPackages(workdir: string, isPruned: boolean): void {
  const lock = JSON.parse(readFileSync(join(workdir, "package-lock.json"), "utf8")) as LockFile;
  const target = join(workdir, "node_modules");
  for (const path of Object.keys(lock.packages)) {
    const name = path.slice("node_modules/".length);
    if (path === "" || name.includes("node_modules/")) continue;
    if (isPruned) {
      if (lock.packages[path]?.dev === true) rmSync(join(target, name), { force: true });
      continue;
    }
    const source = join(packageRoot, path);
    if (!existsSync(source)) continue;
    mkdirSync(join(target, name, ".."), { recursive: true });
    symlinkSync(source, join(target, name));
  }
}
