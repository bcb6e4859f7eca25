// Other releases of Node, out of npm packages that hold its binary: tests train with each, and
// scripts/with-node.mjs runs any command with one.

import { createHash } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SetupError, say } from "./console.mjs";
import { placeDirectory } from "./place.mjs";
import { run } from "./run.mjs";

/** The newest that npm serves of each major version in package.json's engines. */
export const NODE_RELEASES = {
  x64: {
    20: release(
      "20.20.2",
      "PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ==",
    ),
    22: release(
      "22.23.5",
      "3jhC+wcoWxKZxcRqF2sUSl0c9HEXFnur/nuIPx6O6CWKV0jOUWQm7Htw5SuXqqlMCEhi0cJqybFPEb5hhcBiMw==",
    ),
    24: release(
      "24.22.3",
      "KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA==",
    ),
  },
  arm64: {
    20: release(
      "20.20.2",
      "LCXJnNTFiyGuYBw2gZSI5OBFMbkjAPt8sqD/NKrWoE2QmDgSubTqFng6GaNJ9EJ8HpxBMGcWWpbbcs4Vo+CnGg==",
    ),
    22: release(
      "22.23.3",
      "l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA==",
    ),
    24: release(
      "24.22.0",
      "xbI0deR0+gzJizE0IdT7x3ewSqtvWW7tx6QlJIBI6IszUY41yrPmOeS+b6WkA7DmSS8VKJRcMthWVwO1LbjamQ==",
    ),
  },
};

function release(version, sha512) {
  return { version, integrity: `sha512-${sha512}` };
}

/** Names of the tools that `installNodes` finds. */
export const nodeNames = Object.keys(NODE_RELEASES.x64).map((major) => `node${major}`);

/**
 * A Node of every major version: the running one as it is, the others from npm.
 *
 * @returns {Promise<Record<string, string>>} the programs' paths by name
 */
export async function installNodes(cacheDir) {
  const programs = {};
  for (const major of Object.keys(NODE_RELEASES.x64)) {
    programs[`node${major}`] = process.version.startsWith(`v${major}.`)
      ? process.execPath
      : await installNode(cacheDir, major);
  }
  return programs;
}

/**
 * Puts a release into the cache.
 *
 * @param {string} cacheDir
 * @param {string} wanted a major version of the table, or any version that npm serves: `24.0.0`
 * @returns {Promise<string>} the path of the program
 */
export async function installNode(cacheDir, wanted) {
  const known = process.platform === "linux" ? NODE_RELEASES[process.arch] : undefined;
  if (known === undefined) {
    throw new SetupError(`no Node for ${process.platform}-${process.arch} is known`);
  }
  const exact = /^\d+\.\d+\.\d+$/.test(wanted);
  const { version, integrity } = known[wanted] ?? { version: exact ? wanted : null };
  if (version === null) {
    const majors = Object.keys(known).join(", ");
    throw new SetupError(`no Node ${wanted}: give one of ${majors}, or a version such as 24.0.0`);
  }
  const directory = join(cacheDir, "node", version);
  await placeDirectory(directory, async (partialDir) => {
    say(`fetching Node ${version}`);
    const name = `node-linux-${process.arch}`;
    await run("npm", ["pack", `${name}@${version}`, "--pack-destination", partialDir]);
    const archive = join(partialDir, `${name}-${version}.tgz`);
    const found = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
    if (integrity !== undefined && found !== integrity) {
      throw new SetupError(`${name}@${version} is not the package that was pinned: ${found}`);
    }
    await run("tar", ["-xzf", archive, "-C", partialDir, "package/bin/node", "package/LICENSE"]);
    rmSync(archive);
  });
  const program = join(directory, "package", "bin", "node");
  const answer = (await run(program, ["--version"])).trim();
  if (answer !== `v${version}`) throw new SetupError(`${program} says it is ${answer}`);
  return program;
}
