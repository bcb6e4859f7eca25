import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { loadConfig } from "#lib/config/index";
import { packageRoot } from "#lib/core/paths";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { mountSmallDisk } from "#tests/support/small-disk";

// That each of them trains is held by tests/cli/examples.test.ts.

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-recipes-"));
});
after(() => rm(directory, { recursive: true, force: true }));

const recipes = (args: readonly string[], cwd = directory) =>
  lockstepCommand(["recipes", ...args], join(directory, "cache"), undefined, {}, undefined, cwd);

test("every example is listed with what it does", async () => {
  const { code, lines } = await recipes([]);
  assert.equal(code, 0);
  const files = await readdir(join(packageRoot, "examples"));
  const names = files.filter((file) => file.endsWith(".yaml")).map((file) => file.slice(0, -5));
  assert.deepEqual(
    lines.map((line) => line.split(" ", 1)[0]),
    names.sort(),
  );
  // A line of a terminal each.
  for (const line of lines) {
    assert.match(line, /^\S+ +[A-Z][\w,' -]{20,}$/);
    assert.ok(line.length <= 80, line);
  }
  assert.ok(lines.some((line) => /^freeze +Trains the last two layers of a model$/.test(line)));
});

test("a copy runs where it is put, and replaces nothing", async () => {
  const source = await readFile(join(packageRoot, "examples/lora.yaml"), "utf8");
  const inside = join(directory, "inside.yaml");
  const { code, stderr } = await recipes(["copy", "lora", inside], packageRoot);
  assert.equal(code, 0, stderr);
  assert.equal(await readFile(inside, "utf8"), source);
  const { lines } = await recipes(["copy", "lora", "outside.yaml"]);
  const data = join(packageRoot, "examples/data/chats.jsonl");
  assert.match(lines.join("\n"), /^Wrote outside\.yaml\. Its data are .*chats\.jsonl\. `lockstep/);
  const { config, warnings } = await loadConfig([join(directory, "outside.yaml")]);
  assert.deepEqual([config.dataset, warnings], [[data], []]);
  const spaced = await recipes(["copy", "lora", "d\u00e9j\u00e0 vu.yaml"]);
  assert.match(spaced.lines.join("\n"), /`lockstep train 'd\u00e9j\u00e0 vu\.yaml'` runs it\.$/);
  await writeFile(inside, "mine: true\n");
  const again = await recipes(["copy", "lora", inside]);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /^E_FILE_EXISTS: .*inside\.yaml is there already/);
  assert.equal(await readFile(inside, "utf8"), "mine: true\n");
});

test("a copy that a disk has no room for leaves nothing, and can be tried again", async (t) => {
  const disk = mountSmallDisk(join(directory, "disk"), 1 << 20);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  disk.fillUp();
  const file = join(disk.directory, "lora.yaml");
  assert.match((await recipes(["copy", "lora", file])).stderr, /^E_DISK_FULL: /);
  assert.ok(!existsSync(file));
  disk.free();
  assert.equal((await recipes(["copy", "lora", file])).code, 0);
});

test("what is no recipe is refused by its name", async () => {
  const near = await recipes(["copy", "lorra", "x.yaml"]);
  assert.match(near.stderr, /^E_RECIPE_UNKNOWN: There is no recipe lorra; did you mean lora\?/);
  const climbing = await recipes(["copy", "../package", "x.yaml"]);
  assert.match(climbing.stderr, /^E_RECIPE_UNKNOWN/);
  const lost = await recipes(["copy", "lora", "missing/x.yaml"]);
  assert.match(lost.stderr, /^E_CHECKPOINT_WRITE: /);
  for (const args of [
    ["list"],
    ["copy"],
    ["copy", "lora"],
    ["copy", "lora", "a", "b"],
    ["copy", "lora", ""],
  ]) {
    assert.equal((await recipes(args)).code, 2, args.join(" "));
  }
});
