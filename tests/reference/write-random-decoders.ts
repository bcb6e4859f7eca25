import { join } from "node:path";
import { importGguf } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { randomDecoders, writeRandomDecoder } from "#tests/support/random-decoders";

// node dist/tests/reference/write-random-decoders.js DIR: a model directory for each of the random decoders, under its
// name, for make_gguf_converted_fixture.py.

const [target = "random-decoders"] = process.argv.slice(2);
const tokenizer = join(target, "tokenizer");
await importGguf(join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), tokenizer);
for (const [name, config] of Object.entries(randomDecoders)) {
  await writeRandomDecoder(join(target, "models", name), config, tokenizer);
}
