import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { importGgufCommand } from "#cli/import-gguf";
import { packageRoot } from "#lib/core/paths";

const tiny = join(packageRoot, "tests", "fixtures", "tiny-gguf", "tiny.gguf");

test("import-gguf writes a directory and exits 0; wrong arguments are E_USAGE", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-import-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  assert.equal(await importGgufCommand([tiny, join(directory, "model"), "--dtype", "float16"]), 0);
  assert.ok((await readdir(join(directory, "model"))).includes("model.safetensors"));
  for (const args of [[], [tiny], [tiny, "a", "b"], [tiny, "a", "--dtype", "int3"], ["--wat"]]) {
    await assert.rejects(importGgufCommand(args), { code: "E_USAGE" }, args.join(" "));
  }
});
