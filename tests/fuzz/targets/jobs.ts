import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { loadConfig, printConfig } from "#lib/config/index";
import { readConfigFile } from "#lib/config/yaml-file";
import { property, type Target } from "#tests/fuzz/target";
import { fixture, inFile, readFixture, texts } from "./files.js";

const jobFiles = fs
  .readdirSync(fixture("cases"))
  .filter((name) => fs.existsSync(fixture("cases", name, "job.yaml")))
  .map((name) => readFixture("cases", name, "job.yaml"));
const toolFiles = fs
  .readdirSync(fixture("configs"))
  .filter((name) => /\.ya?ml$/.test(name))
  .map((name) => readFixture("configs", name));

const words = [
  "&a [*a, *a, *a]",
  "*a",
  "<<: *a",
  "? [a]",
  "? {a: b}\n",
  ": ",
  "- ",
  "!!binary x",
  "!!set {a}",
  "!!timestamp 2001-01-01",
  "!!merge <<: 1",
  "---\n",
  "...\n",
  "%YAML 1.1\n",
  "| \n",
  ">-\n",
  "0x10",
  "1_000",
  ".inf",
  ".nan",
  "~",
  "1e400",
  "12:30:45",
  "lora_target: all\n",
  "dataset: [{path: a, type: {field: b}}]\n",
  "columns: {text: a}\n",
  "datasets:\n  - path: a\n    type: alpaca\n",
  "optim_args: a=b,c=1\n",
  "lr_scheduler_kwargs: {a: 1}\n",
  "fp16: auto\n",
  "seed: 18446744073709551616\n",
  "output_dir: ~/x\n",
  "class_weights: [1, .inf]\n",
  "learning_rates: {a: 1}\n",
];

const jobFile = (name: string, share: number, corpus: readonly Buffer[]): Target => ({
  name,
  share,
  open: async (folder) => ({
    kind: "bytes",
    form: "text",
    corpus,
    words,
    read: inFile(join(folder, "job.yaml"), async (file) => {
      const { config } = await loadConfig([file], "train");
      printConfig(config);
    }),
  }),
});

const flagLines = [
  "--learning_rate\n1e-4\n--bf16\n--no-packing\n--dataset=[a.jsonl, b.csv]\n--model_name_or_path\nm",
  "job.yaml\n--lora-rank=8\n--seed\n-1\n--optim_args=a=1,b=2",
  "--\n--x\n--dataset\n[{path: a, type: alpaca}]",
];
const flags: Target = {
  name: "jobs/flags",
  share: 2,
  open: async () => ({
    kind: "bytes",
    form: "text",
    corpus: texts(...flagLines),
    words: [...words, "--", "--no-", "=", "--seed\n", "--bf16=auto\n", "--columns={text: a}\n"],
    // An argument a line; a file that one names is not there.
    read: async (input) => loadConfig(input.toString("utf8").split("\n"), "train"),
  }),
};

const jobRoundTrip = property(
  "jobs/written",
  1,
  fc.record({
    model_name_or_path: fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }),
    seed: fc.nat(2 ** 31 - 1),
    learning_rate: fc.double({ min: 1e-12, max: 1, noNaN: true }),
  }),
  async ({ model_name_or_path, seed, learning_rate }, folder) => {
    const file = join(folder, "job.yaml");
    fs.writeFileSync(
      file,
      JSON.stringify({ model_name_or_path, seed, learning_rate, dataset: "a.jsonl" }),
    );
    const { config } = await loadConfig([file]);
    const written = printConfig(config);
    fs.writeFileSync(file, written);
    const read = await readConfigFile(file);
    for (const key of ["model_name_or_path", "seed", "learning_rate"] as const) {
      assert.deepEqual(read.get(key)?.value, config[key], key);
    }
    assert.equal(printConfig((await loadConfig([file])).config), written);
  },
);

export const targets: readonly Target[] = [
  jobFile("jobs/yaml", 5, jobFiles),
  jobFile("jobs/tools", 5, toolFiles),
  flags,
  jobRoundTrip,
];
