import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { importGguf } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { writeTinyEncoder } from "#tests/support/tiny-classifier";

/** More than of other tiny models: their tokens are few letters each, so that a text takes many. */
const positions = 1024;

/** A tiny Llama with a chat template. */
export async function writeTinyChatModel(directory: string): Promise<void> {
  await importGguf(join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), directory);
  await writeFile(
    join(directory, "chat_template.jinja"),
    "{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}" +
      "{% if add_generation_prompt %}<|start|>assistant: {% endif %}",
  );
  const file = join(directory, "config.json");
  const config = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  await writeFile(file, JSON.stringify({ ...config, max_position_embeddings: positions }, null, 2));
}

/** Tiny models of the same architectures under the names of those that the set-up brings. */
export async function writeNamedModels(cacheDirectory: string): Promise<void> {
  const models = join(cacheDirectory, "models");
  await writeTinyChatModel(join(models, "SmolLM2-135M-Instruct"));
  await writeTinyEncoder(join(models, "all-MiniLM-L6-v2"), "bert", positions);
}
