import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { saveFilesAtomically } from "#lib/checkpoint/index";
import { copyTokenizer } from "#lib/checkpoint/model-directory";
import { pushedFiles } from "#lib/hub/push";

test("chat templates with names are saved with a model, over those before, and pushed", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-templates-"));
  t.after(() => rm(directory, { recursive: true }));
  const [source, output] = [join(directory, "source"), join(directory, "output")];
  const folder = join(source, "additional_chat_templates");
  await mkdir(folder, { recursive: true });
  await writeFile(join(source, "chat_template.jinja"), "default");
  await writeFile(join(folder, "notes.txt"), "no template");
  for (const names of [["tool_use", "old"], ["tool_use"]]) {
    await rm(join(folder, "old.jinja"), { force: true });
    for (const name of names) await writeFile(join(folder, `${name}.jinja`), names.join());
    await saveFilesAtomically(output, async (temporary) => {
      await writeFile(join(temporary, "model.safetensors"), "weights");
      await copyTokenizer(source, temporary);
    });
    const saved = await readFile(join(output, "additional_chat_templates/tool_use.jinja"), "utf8");
    assert.equal(saved, names.join());
  }
  assert.deepEqual(await pushedFiles(output), [
    "additional_chat_templates/tool_use.jinja",
    "chat_template.jinja",
    "model.safetensors",
  ]);
});
