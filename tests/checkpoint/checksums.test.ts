import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { verifyChecksums, writeChecksums } from "#lib/checkpoint/index";
import { rejectsWith, temporaryDirectory } from "./support.js";

test("checksums are those of sha256sum, and a changed or missing file is named", async (t) => {
  const directory = await temporaryDirectory(t);
  await mkdir(join(directory, "lockstep"));
  await writeFile(join(directory, "weights"), Buffer.alloc(3 * 1024 * 1024 + 1, 7));
  await writeFile(join(directory, "lockstep", "empty"), "");
  const name = "lockstep/checksums.json";
  await writeChecksums(directory, name);
  const sums = JSON.parse(await readFile(join(directory, name), "utf8"));
  const output = execFileSync("sha256sum", ["lockstep/empty", "weights"], { cwd: directory });
  const expected = output
    .toString()
    .trim()
    .split("\n")
    .map((line) => line.split(/\s+/).reverse());
  assert.deepEqual(sums, Object.fromEntries(expected));
  await verifyChecksums(directory, name);
  const damaged = Buffer.alloc(3 * 1024 * 1024 + 1, 7);
  damaged[2_000_000] = 6;
  await writeFile(join(directory, "weights"), damaged);
  await rejectsWith(
    verifyChecksums(directory, name),
    "E_CHECKPOINT_DAMAGED",
    /weights has a wrong/,
  );
  await rm(join(directory, "weights"));
  await rejectsWith(verifyChecksums(directory, name), "E_CHECKPOINT_DAMAGED", /weights is missing/);
  await writeFile(join(directory, name), '{"../x": ""}');
  await rejectsWith(verifyChecksums(directory, name), "E_CHECKPOINT_DAMAGED", /outside/);
});
