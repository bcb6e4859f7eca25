import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { claimOutputDirectory } from "#run/output-directory";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";

let directory = "";

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-output-"));
});

after(() => rm(directory, { recursive: true, force: true }));

const withCode = (code: string) => (error: unknown) =>
  isLockstepError(error) && error.code === code;

test("a place where nothing can be made is told at once", async () => {
  for (const place of ["/proc/lockstep-output", "/proc/lockstep/output"]) {
    await assert.rejects(claimOutputDirectory(place), withCode("E_CHECKPOINT_WRITE"));
  }
});

test("a directory belongs to one run, under each of its names, until it is given up", async () => {
  const output = join(directory, "a", "b");
  const release = await claimOutputDirectory(output);
  assert.deepEqual(await readdir(output), [], "a claim leaves no file");
  await symlink(output, join(directory, "link"));
  await assert.rejects(claimOutputDirectory(output), withCode("E_OUTPUT_DIR_IN_USE"));
  await assert.rejects(
    claimOutputDirectory(join(directory, "link")),
    withCode("E_OUTPUT_DIR_IN_USE"),
  );
  await (await claimOutputDirectory(join(directory, "other")))();
  await release();
  await (await claimOutputDirectory(output))();
});

test("a killed process leaves no claim behind", async () => {
  const output = join(directory, "killed");
  const module = pathToFileURL(join(packageRoot, "dist/run/output-directory.js")).href;
  const source = `
    const { claimOutputDirectory } = await import(${JSON.stringify(module)});
    await claimOutputDirectory(${JSON.stringify(output)});
    process.stdout.write("claimed");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  await assert.rejects(claimOutputDirectory(output), withCode("E_OUTPUT_DIR_IN_USE"));
  child.kill("SIGKILL");
  await once(child, "exit");
  await (await claimOutputDirectory(output))();
});

test("a file where the directory should be is an error with a code", async () => {
  await writeFile(join(directory, "file"), "");
  await assert.rejects(
    claimOutputDirectory(join(directory, "file")),
    withCode("E_CHECKPOINT_WRITE"),
  );
  await assert.rejects(
    claimOutputDirectory(join(directory, "file", "below")),
    withCode("E_CHECKPOINT_WRITE"),
  );
});
