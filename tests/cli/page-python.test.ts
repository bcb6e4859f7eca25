import assert from "node:assert/strict";
import { symlink } from "node:fs/promises";
import { after, before, test } from "node:test";
import { blocksOf, pages } from "#tests/support/page-blocks";
import {
  createPageCheckout,
  madeSmall,
  type PageCheckout,
  trainExample,
  withoutTensorFlow,
} from "#tests/support/page-checkout";
import { needsPeers, runPeersLines } from "#tests/support/peers";

// What the pages tell a person to do with a result in Python.

let checkout: PageCheckout;
const path = (...parts: string[]): string => checkout.path(...parts);

before(async () => {
  checkout = await createPageCheckout();
});

after(() => checkout.remove());

test("the Python lines of the pages run on the results of the examples", needsPeers(), async () => {
  await trainExample(checkout, "quickstart.yaml", withoutTensorFlow);
  await trainExample(checkout, "lora.yaml", withoutTensorFlow);
  await trainExample(checkout, "classifier.yaml");
  const blocks = pages.flatMap(blocksOf).filter(({ language }) => language === "python");
  assert.ok(blocks.length >= 2);
  // A person who trained on a directory; the name of a model in the cache is none to Python.
  const name = "SmolLM2-135M-Instruct";
  await symlink(path("cache/models", name), path(name));
  const adapter = ["--use_peft", "true", "--output_dir", "runs/lora-classifier"];
  const [code, output] = await checkout.run(
    madeSmall(["train", "examples/classifier.yaml", ...adapter]),
  ).ended;
  assert.equal(code, 0, output);
  for (const { page, line, text } of blocks) {
    const lines = text.replaceAll('"/models/', `"${path("cache/models")}/`);
    await runPeersLines(`${page}:${line}`, lines, checkout.directory);
  }
});
