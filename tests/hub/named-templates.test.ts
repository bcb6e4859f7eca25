import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { downloadSnapshot } from "#lib/hub/index";
import { startHub, tinyRepository } from "#tests/hub/support";

const model = { id: "tiny/llama", revision: "main" };

test("chat templates with names are fetched from their folder, and nothing else of it", async (t) => {
  const hub = await startHub(t);
  const folder = "additional_chat_templates";
  hub.server.add(model.id, {
    ...(await tinyRepository()),
    [`${folder}/tool_use.jinja`]: "a template",
    [`${folder}/notes.txt`]: "none",
    "other/tool_use.jinja": "none",
  });
  const snapshot = await downloadSnapshot(model, hub.settings, () => {}, []);
  const names = await readdir(snapshot);
  assert.ok(names.includes(folder) && names.includes("chat_template.jinja"), names.join());
  assert.ok(!names.includes("other"));
  assert.deepEqual(await readdir(join(snapshot, folder)), ["tool_use.jinja"]);
  assert.equal(await readFile(join(snapshot, folder, "tool_use.jinja"), "utf8"), "a template");
});
