import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  listCheckpoints,
  rotateCheckpoints,
  saveAtomically,
  saveFilesAtomically,
} from "#lib/checkpoint/index";
import { guardWrites } from "#lib/checkpoint/write-guard";
import { packageRoot } from "#lib/core/paths";
import { apart } from "#tests/support/output-owner";
import { mountSmallDisk } from "#tests/support/small-disk";
import { rejectsWith, temporaryDirectory } from "./support.js";

const saveText = (directory: string, text: string): Promise<void> =>
  saveAtomically(directory, (temporary) => writeFile(join(temporary, "state"), text));
const stateIn = (directory: string): Promise<string> => readFile(join(directory, "state"), "utf8");

test("a save is invisible until it is whole, and replaces the old one", async (t) => {
  const output = await temporaryDirectory(t);
  const directory = join(output, "runs", "checkpoint-1");
  await saveAtomically(directory, async (temporary) => {
    assert.ok(!existsSync(directory));
    await mkdir(join(temporary, "lockstep"));
    await writeFile(join(temporary, "lockstep", "x"), "1");
  });
  assert.deepEqual(await readdir(directory), ["lockstep"]);
  await saveText(directory, "2");
  assert.deepEqual(await readdir(directory), ["state"]);
  assert.deepEqual(await readdir(join(output, "runs")), ["checkpoint-1"]);
});

test("a save that fails leaves the old one and nothing else", async (t) => {
  const output = await temporaryDirectory(t);
  const directory = join(output, "checkpoint-1");
  await saveText(directory, "old");
  const failWith = (error: Error): Promise<void> =>
    saveAtomically(directory, async (temporary) => {
      await writeFile(join(temporary, "state"), "new");
      throw error;
    });
  const noSpace = Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" });
  await rejectsWith(failWith(noSpace), "E_DISK_FULL");
  const io = Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
  await rejectsWith(failWith(io), "E_CHECKPOINT_WRITE", /EIO/);
  await assert.rejects(failWith(new TypeError("a bug")), TypeError);
  assert.equal(await stateIn(directory), "old");
  assert.deepEqual(await readdir(output), ["checkpoint-1"]);
});

test("on a disk that is really full, the previous checkpoint stays whole", async (t) => {
  const disk = join(await temporaryDirectory(t), "disk");
  const mounted = mountSmallDisk(disk, 1 << 20);
  if (typeof mounted === "string") return t.skip(mounted);
  try {
    await saveText(join(disk, "checkpoint-1"), "old");
    const tooMuch = (temporary: string): Promise<void> =>
      writeFile(join(temporary, "weights"), Buffer.alloc(2 * 1024 * 1024));
    await rejectsWith(saveAtomically(join(disk, "checkpoint-2"), tooMuch), "E_DISK_FULL");
    await rejectsWith(saveAtomically(join(disk, "checkpoint-1"), tooMuch), "E_DISK_FULL");
    assert.equal(await stateIn(join(disk, "checkpoint-1")), "old");
    assert.deepEqual(await readdir(disk), ["checkpoint-1"]);
    // The failed attempts gave their space back.
    await saveText(join(disk, "checkpoint-2"), "x".repeat(700_000));
  } finally {
    mounted.remove();
  }
});

test("kill -9 in the middle of a save leaves the old one; the next save cleans up", async (t) => {
  const output = await temporaryDirectory(t);
  const directory = join(output, "checkpoint-1");
  await saveText(directory, "old");
  const script = join(packageRoot, "dist", "tests", "checkpoint", "killed-writer.js");
  const child = spawn(process.execPath, [script, directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  // While its writer lives, another save leaves its temporary directory alone.
  await saveText(join(output, "checkpoint-2"), "two");
  assert.equal((await readdir(output)).length, 3);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(await stateIn(directory), "old");
  await saveText(join(output, "checkpoint-3"), "three");
  assert.deepEqual(await readdir(output), ["checkpoint-1", "checkpoint-2", "checkpoint-3"]);
});

test("a replacement that was cut between its two renames is undone", async (t) => {
  const output = await temporaryDirectory(t);
  const directory = join(output, "checkpoint-4");
  await saveText(directory, "old");
  // Process ids end far below this one, so its owner is gone.
  const name = (kind: string): string =>
    join(output, `.checkpoint-4.${kind}-999999999-0123456789ab`);
  await rename(directory, name("previous"));
  await mkdir(name("tmp"));
  assert.deepEqual(await listCheckpoints(output), [{ step: 4, directory }]);
  assert.equal(await stateIn(directory), "old");
  // With the new one in place, the old one is waste.
  await mkdir(name("previous"));
  await mkdir(name("removed"));
  await listCheckpoints(output);
  assert.deepEqual(await readdir(output), ["checkpoint-4"]);
});

test("files go into a directory that holds other things, and stale shards leave it", async (t) => {
  const output = await temporaryDirectory(t);
  await saveText(join(output, "checkpoint-1"), "kept");
  const save = (names: readonly string[]): Promise<void> =>
    saveFilesAtomically(output, async (temporary) => {
      for (const name of names) await writeFile(join(temporary, name), name);
    });
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  await save(["config.json", ...shards, "model.safetensors.index.json"]);
  await save(["config.json", "model.safetensors"]);
  await save(["all_results.json"]);
  assert.deepEqual((await readdir(output)).sort(), [
    "all_results.json",
    "checkpoint-1",
    "config.json",
    "model.safetensors",
  ]);
});

test("a model in a folder takes the place of the model there, and of nothing else", async (t) => {
  const output = await temporaryDirectory(t);
  const save = (names: readonly string[]): Promise<void> =>
    saveFilesAtomically(output, async (temporary) => {
      await mkdir(join(temporary, "ema"));
      for (const name of names) await writeFile(join(temporary, "ema", name), name);
    });
  await save(["config.json", "model-00001-of-00001.safetensors"]);
  await writeFile(join(output, "ema", "notes.txt"), "somebody's");
  await save(["config.json", "model.safetensors"]);
  assert.deepEqual((await readdir(join(output, "ema"))).sort(), [
    "config.json",
    "model.safetensors",
    "notes.txt",
  ]);
});

test("what another kind of run left in a directory goes: a model and an adapter are never both there", async (t) => {
  const output = await temporaryDirectory(t);
  const save = (names: string[]): Promise<void> =>
    saveFilesAtomically(output, async (temporary) => {
      for (const name of names) await writeFile(join(temporary, name), name);
    });
  const adapter = ["adapter_config.json", "adapter_model.safetensors"];
  const model = ["config.json", "model.safetensors"];
  for (const names of [model, [...adapter, "classifier_config.json"], adapter, model]) {
    await save([...names, "tokenizer.json"]);
    assert.deepEqual((await readdir(output)).sort(), [...names, "tokenizer.json"].sort());
  }
});

test("rotation keeps the last and the best", async (t) => {
  const output = await temporaryDirectory(t);
  for (const step of [5, 10, 100, 20]) await saveText(join(output, `checkpoint-${step}`), "");
  await mkdir(join(output, "checkpoint-x"));
  const steps = async (): Promise<number[]> => (await listCheckpoints(output)).map((c) => c.step);
  const rotate = async (limit: number | null, keep?: string): Promise<number> =>
    (await rotateCheckpoints(await listCheckpoints(output), limit, keep)).length;
  assert.equal(await rotate(null), 0);
  assert.deepEqual(await steps(), [5, 10, 20, 100]);
  await rotate(3);
  assert.deepEqual(await steps(), [10, 20, 100]);
  await rotate(1, join(output, "checkpoint-10"));
  assert.deepEqual(await steps(), [10, 100]);
  await rotate(1);
  assert.deepEqual(await steps(), [100]);
  assert.deepEqual(await readdir(output), ["checkpoint-100", "checkpoint-x"]);
  assert.deepEqual(await listCheckpoints(join(output, "missing")), []);
});

test("a save in progress is left alone by who looks from another container", async (t) => {
  const prefix = apart(t, "pid");
  if (prefix === undefined) return;
  const output = await temporaryDirectory(t);
  const index = pathToFileURL(join(packageRoot, "dist/lib/checkpoint/index.js")).href;
  const look = `
    const { listCheckpoints } = await import(${JSON.stringify(index)});
    process.stdout.write(String((await listCheckpoints(${JSON.stringify(output)})).length));`;
  await saveText(join(output, "checkpoint-1"), "1");
  await saveAtomically(join(output, "checkpoint-2"), async (temporary) => {
    await writeFile(join(temporary, "state"), "2");
    const [program, ...args] = [...prefix, process.execPath, "--input-type=module", "-e", look];
    assert.equal(execFileSync(program, args, { encoding: "utf8" }), "1");
  });
  assert.equal(await stateIn(join(output, "checkpoint-2")), "2");
});

test("leftovers go at once where this process alone writes, whoever left them", async (t) => {
  const output = await temporaryDirectory(t);
  const leftover = ".checkpoint-3.tmp-1.00000000-0123456789ab";
  await mkdir(join(output, leftover));
  await listCheckpoints(output);
  assert.deepEqual(await readdir(output), [leftover], "its writer may live elsewhere");
  const endGuard = guardWrites([output], () => {});
  t.after(endGuard);
  await listCheckpoints(output);
  assert.deepEqual(await readdir(output), []);
});
