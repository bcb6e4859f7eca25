import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { after, before, test } from "node:test";
import { blocksOf } from "#tests/support/page-blocks";
import {
  createPageCheckout,
  examples,
  type PageCheckout,
  trainExample,
} from "#tests/support/page-checkout";

// The examples as a person runs them, with the engine.

let checkout: PageCheckout;
const path = (...parts: string[]): string => checkout.path(...parts);

before(async () => {
  checkout = await createPageCheckout();
});

after(() => checkout.remove());

test("every example trains on the data that is beside it", async () => {
  assert.ok(examples.length >= 3);
  for (const name of examples) {
    const output = `runs/${name.replace(/\.ya?ml$/, "")}`;
    await trainExample(checkout, name);
    // Where the file says that its result goes.
    assert.ok(existsSync(path(output, "trainer_state.json")), output);
  }
  assert.ok(existsSync(path("runs/lora/adapter_config.json")));
});

test("the programs of examples train and generate", async () => {
  const program = async (name: string, ...args: string[]): Promise<string> => {
    const child = spawn(process.execPath, [path("examples", name), ...args], {
      cwd: checkout.directory,
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    const code = await new Promise((resolve) => child.on("close", resolve));
    assert.equal(code, 0, `${name}: ${output}`);
    return output;
  };
  const trained = await program(
    ...(["train.mjs", "models/llama3", "data/instructions.jsonl", "runs/program", "1"] as const),
  );
  assert.match(trained, /^step 1 of 1: loss \d/m);
  assert.match(trained, /^finished after 1 steps runs\/program$/m);
  assert.match(await program("generate.mjs", "runs/program", "One"), /^One./m);
});

test("the files that README.md lists are there", () => {
  const block = blocksOf("README.md").find(({ language }) => language === "");
  const [directory = "", ...lines] = (block?.text ?? "").trim().split("\n");
  const names = lines.flatMap((line) => line.match(/\b\w+\.(json|safetensors|yaml)\b/g) ?? []);
  assert.ok(names.length >= 7);
  for (const name of names) assert.ok(statSync(path(directory, name)).size > 0, name);
});
