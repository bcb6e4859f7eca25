import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { loadConfig } from "#lib/config/index";
import { packageRoot } from "#lib/core/paths";
import { writeNamedModels, writeTinyChatModel } from "#tests/support/named-models";
import { blocksOf, commandsOf, type PageCommand, pages, wordsOf } from "#tests/support/page-blocks";
import { needsPeers, runPeersLines } from "#tests/support/peers";

// What the pages and the examples tell a person to type is typed, in a directory that looks like a
// checkout: with tiny models under the names of real ones, one step instead of many, and what stands for a
// person's own files. A block that no table here knows fails by its place.

let checkout = "";
const path = (...parts: string[]): string => join(checkout, ...parts);

before(async () => {
  checkout = await mkdtemp(join(tmpdir(), "lockstep-pages-"));
  for (const name of ["bin", "examples"]) await symlink(join(packageRoot, name), path(name));
  await writeNamedModels(path("cache"));
  await ownFiles();
});

after(() => rm(checkout, { recursive: true, force: true }));

/** Files that a person has: a job, and those of other tools with their data. */
async function ownFiles(): Promise<void> {
  const fixtures = join(packageRoot, "tests/fixtures");
  await writeTinyChatModel(path("models/llama3"));
  await mkdir(path("data"));
  for (const name of ["dataset_info.json", "greetings.json", "sums.jsonl"]) {
    await copyFile(join(fixtures, "configs/data", name), path("data", name));
  }
  const rows = Array.from({ length: 20 }, (_, i) => ({
    instruction: `Add ${i} and ${i + 1}.`,
    output: String(2 * i + 1),
  }));
  await writeFile(
    path("data/instructions.jsonl"),
    rows.map((row) => JSON.stringify(row)).join("\n"),
  );
  await copyFile(
    join(fixtures, "configs/llamafactory_full_sft.yaml"),
    path("llama3_full_sft.yaml"),
  );
  await copyFile(join(fixtures, "configs/axolotl_lora_1b.yml"), path("lora-1b.yml"));
  await copyFile(join(fixtures, "tiny-gguf/tiny.gguf"), path("tiny.gguf"));
  const review = (i: number): string => `"review ${i}, in short",${i % 2 === 0 ? "good" : "bad"}`;
  const reviews = ["review,label", ...Array.from({ length: 4 }, (_, i) => review(i))];
  await writeFile(path("reviews.csv"), reviews.join("\n"));
  const job = {
    ...{ model_name_or_path: "models/llama3", dataset: "examples/data/chats.jsonl" },
    output_dir: "runs/job",
  };
  await writeFile(path("job.yaml"), stringify(job));
}

/** Instead of the sizes of a real run, whatever file or flag gives them. */
const small: Readonly<Record<string, string>> = {
  max_steps: "1",
  max_length: "512",
  max_samples: "40",
  max_eval_samples: "2",
  sample_max_new_tokens: "2",
  per_device_train_batch_size: "1",
  per_device_eval_batch_size: "1",
  threads_per_worker: "1",
  bf16: "false",
  use_cpu: "true",
};

/** The examples train with the engine; what the pages train besides is about commands, not about numbers. */
const withoutTensorFlow = {
  engine_module: join(packageRoot, "dist/tests/support/fake-engine.js"),
};

/** What a word of a page stands for, by command where it is not the same everywhere. */
const words: Readonly<Record<string, readonly string[]>> = {
  "CONFIG.yaml": ["job.yaml"],
  "[--key": [],
  value: [],
  "...]": [],
  MODEL: ["runs/quickstart"],
  "classify MODEL": ["runs/classifier"],
  // The hub's models are held by tests/hub.
  "HuggingFaceTB/SmolLM2-135M": ["models/llama3"],
  "ORGANISATION/ADAPTER": ["runs/lora"],
  "merged/": ["merged-too"],
  TEXT: ["One"],
  "submit DIR": ["queue"],
  ADAPTER_DIR: ["runs/lora"],
  "merge-adapter DIR": ["merged"],
  "export DIR": ["exported"],
  "import-gguf FILE": ["tiny.gguf"],
  "import-gguf DIR": ["imported"],
};

/** What is not run here, and why. */
const notRun: readonly (readonly [command: RegExp, reason: string])[] = [
  [/^npm (start|test)$/, "the quick start and the tests themselves; they begin with the set-up"],
  [/^npm run (build|check|format)$/, "the work of the tests' own build"],
  [/^npm run bench\b/, "measures for minutes"],
  [/^npm run demo:forgetting\b/, "trains for minutes; tests/bench/forgetting runs it small"],
  [/^npm run soak\b/, "runs for an hour; tests/chaos takes some of its schedules"],
  [/^node scripts\/soak\.mjs\b/, "the same"],
  [/^node scripts\/setup\.mjs\b/, "tests/setup runs it on a checkout of its own"],
  [/^node scripts\/test\.mjs\b/, "this is it"],
  [/^node scripts\/with-node\.mjs\b/, "tests/setup/other-nodes.test.ts trains on other Nodes"],
  [/^bin\/lockstep push\b/, "needs the hub; tests/hub/push.test.ts has one"],
  [/^node scripts\/setup\.mjs && npm pack$/, "tests/library packs"],
  [/^npm install \.\.\/lockstep\//, "tests/library installs what it packed"],
  [/^npx lockstep setup$/, "tests/library runs it where it installed the package"],
  [/^node dist\/bench\/[\w/-]+\.js\b/, "measures for minutes"],
  [/^python bench\/peers\/long_run\.py\b/, "trains for minutes"],
  [/^python3 -m venv profile\b/, "installs another TensorFlow"],
  [/^PEAK_TFLOPS=\d+ .*bash bench\/gpu\.sh$/, "needs a GPU"],
  [/^bin\/lockstep verify-model DIR$/, "takes long; tests/cli/verify-model.test.ts runs it"],
  [/^bin\/lockstep checkpoint ID\b/, "needs a job that runs; tests/cli/queue.test.ts has one"],
  [
    /^bin\/lockstep agent --role\b/,
    "needs a server and machines; tests/cli/queue.test.ts has both",
  ],
  [
    /^bin\/lockstep coordinator CONFIG\.yaml --standby --listen\b/,
    "needs two machines; tests/cli/standby.test.ts has two coordinators",
  ],
  [/^bin\/lockstep worker --coordinator A:29500,B:29500$/, "the same"],
  [/^bin\/lockstep reducer --listen\b/, "serves until a run is over; tests/cli/reducers.test.ts"],
  [/^bin\/lockstep agent --queue DIR$/, "waits for jobs; docs/queue.md runs one that does not"],
  [/^nats-server\b/, "a program of others; tests/nats starts it"],
  [/--nats[-_]url\b/, "needs a server; tests/nats and tests/cli/queue.test.ts have one"],
  [/^bin\/lockstep (watch|control) RUN\b/, "the same"],
  [/^docker build\b/, "needs Docker; tests/deploy reads the container files"],
  [/^kubectl\b/, "needs a cluster; tests/deploy reads the manifests"],
];

/** Languages of blocks that are shown, and what holds them. */
const shown: readonly (readonly [page: RegExp, language: RegExp, holder: string])[] = [
  [/^docs\/data\.md$/, /^(jsonl|csv|text|json)$/, "tests/data/docs-examples.test.ts"],
  [/^docs\/classification\.md$/, /^json$/, "tests/objectives/label-sets.test.ts"],
  [/^docs\/configuration\.md$/, /^text$/, "tests/core/config-foreign.test.ts"],
  [/^docs\/files\.md$/, /^text$/, "tests/checkpoint"],
  [/^docs\/forgetting\.md$/, /^text$/, "tests/progress/forgetting.test.ts"],
  [/^docs\/library\.md$/, /^ts$/, "tests/library/installed.test.ts"],
  [/^README\.md$/, /^$/, "the quick start of this file"],
];

function run(args: readonly string[]): {
  child: ChildProcess;
  ended: Promise<[number | null, string]>;
} {
  const child = spawn(process.execPath, [path("bin/lockstep"), ...args], {
    cwd: checkout,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LOCKSTEP_CACHE: path("cache") },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  const ended = new Promise<[number | null, string]>((resolve) => {
    child.on("close", (code) => resolve([code, output]));
  });
  return { child, ended };
}

/** A command that trains, made small: flags that say otherwise go. */
function madeSmall(args: readonly string[], but: Readonly<Record<string, string>> = {}): string[] {
  const forced = { ...small, ...but };
  const kept: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i] ?? "";
    const key = word.startsWith("--") ? word.slice(2).replaceAll("-", "_") : "";
    if (key in forced) {
      if (!(args[i + 1] ?? "--").startsWith("--")) i++;
    } else kept.push(word);
  }
  return [...kept, ...Object.entries(forced).flatMap(([key, value]) => [`--${key}`, value])];
}

/** `lockstep` as a page types it, with the words of the table in place. */
async function lockstep({ place, text }: PageCommand): Promise<void> {
  const [, command = "", ...rest] = wordsOf(text);
  const args = rest.flatMap((word) =>
    word === "ID" && command !== "push"
      ? [jobId]
      : (words[`${command} ${word}`] ?? words[word] ?? [word]),
  );
  if (command === "coordinator") return hosted(place, madeSmall(args, withoutTensorFlow));
  // Its line comes with the coordinator's.
  if (command === "worker") return assert.equal(rest.join(" "), "--coordinator HOST:PORT", place);
  // As it stands it is the first test's.
  const isExample = examples.some((name) => rest.join(" ") === `examples/${name}`);
  if (command === "train" && isExample) return;
  if (command === "submit") args.push(...asSettings({ ...small, ...withoutTensorFlow }));
  const isTraining = command === "train" || command === "train-local";
  const typed = isTraining ? madeSmall(args, withoutTensorFlow) : args;
  const [code, output] = await run([command, ...typed]).ended;
  assert.equal(code, 0, `${place}: ${text}\n${output}`);
  if (command === "submit") jobId = /^[a-z0-9]{8}\b/m.exec(output)?.[0] ?? "";
}

/** Of the job that was submitted last. */
let jobId = "";

const asSettings = (settings: Readonly<Record<string, string>>): string[] =>
  Object.entries(settings).map(([key, value]) => `--set=${key}=${value}`);

async function hosted(place: string, args: readonly string[]): Promise<void> {
  const coordinator = run([
    "coordinator",
    ...args,
    "--workers",
    "1",
    "--output_dir",
    "runs/hosted",
  ]);
  const address = new Promise<string>((resolve, reject) => {
    let text = "";
    coordinator.child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      const found = /lockstep worker --coordinator (\S+)/.exec(text);
      if (found?.[1] !== undefined) resolve(found[1]);
    });
    void coordinator.ended.then(([, output]) => reject(new Error(`${place}: ${output}`)));
  });
  const worker = run([
    ...["worker", "--coordinator", await address],
    ...["--engine-module", withoutTensorFlow.engine_module],
  ]);
  for (const { ended } of [worker, coordinator]) {
    const [code, output] = await ended;
    assert.equal(code, 0, `${place}: ${output}`);
  }
}

const examples = readdirSync(join(packageRoot, "examples")).filter((name) => /\.ya?ml$/.test(name));

test("every example trains on the data that is beside it", async () => {
  assert.ok(examples.length >= 3);
  for (const name of examples) {
    const output = `runs/${name.replace(/\.ya?ml$/, "")}`;
    const [code, text] = await run(
      madeSmall(["train", `examples/${name}`, "--disable_tqdm", "true"]),
    ).ended;
    assert.equal(code, 0, `${name}:\n${text}`);
    // Where the file says that its result goes.
    assert.ok(existsSync(path(output, "trainer_state.json")), output);
  }
  assert.ok(existsSync(path("runs/lora/adapter_config.json")));
});

test("the programs of examples train and generate", async () => {
  const program = async (name: string, ...args: string[]): Promise<string> => {
    const child = spawn(process.execPath, [path("examples", name), ...args], { cwd: checkout });
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

for (const page of pages) {
  const commands = blocksOf(page)
    .filter(({ language }) => language === "sh")
    .flatMap(commandsOf);
  if (commands.length === 0) continue;
  test(`what ${page} tells to type runs`, async () => {
    for (const command of commands) {
      const { text, place } = command;
      const isRun = !notRun.some(([pattern]) => pattern.test(text));
      if (isRun) {
        assert.match(text, /^bin\/lockstep /, `${place}: no test knows how to run it`);
        await lockstep(command);
        continue;
      }
      const file = /^(?:node|python|.* bash) ((?:dist|scripts|bench)\/[\w./-]+)/.exec(text)?.[1];
      if (file !== undefined) assert.ok(existsSync(join(packageRoot, file)), `${place}: ${file}`);
    }
  });
}

test("a command that is not run is still in a page", () => {
  const all = pages.flatMap((page) => blocksOf(page).flatMap(commandsOf));
  for (const [pattern] of notRun) {
    assert.ok(
      all.some(({ text }) => pattern.test(text)),
      `${String(pattern)} is in no page: take it out of the list`,
    );
  }
});

test("a block of YAML in a page is a job, and other blocks are held by a test", async () => {
  for (const block of pages.flatMap(blocksOf)) {
    const place = `${block.page}:${block.line}`;
    if (["sh", "python"].includes(block.language)) continue;
    if (block.language === "yaml") {
      const file = path("page.yaml");
      await writeFile(file, block.text);
      assert.deepEqual((await loadConfig([file])).warnings, [], place);
      continue;
    }
    assert.ok(
      shown.some(([page, language]) => page.test(block.page) && language.test(block.language)),
      `${place}: no test holds this block`,
    );
  }
});

test("the Python lines of the pages run on the results of the examples", needsPeers(), async () => {
  const blocks = pages.flatMap(blocksOf).filter(({ language }) => language === "python");
  assert.ok(blocks.length >= 2);
  // A person who trained on a directory; the name of a model in the cache is none to Python.
  const name = "SmolLM2-135M-Instruct";
  await symlink(path("cache/models", name), path(name));
  const adapter = ["--use_peft", "true", "--output_dir", "runs/lora-classifier"];
  const [code, output] = await run(madeSmall(["train", "examples/classifier.yaml", ...adapter]))
    .ended;
  assert.equal(code, 0, output);
  for (const { page, line, text } of blocks) {
    const lines = text.replaceAll('"/models/', `"${path("cache/models")}/`);
    await runPeersLines(`${page}:${line}`, lines, checkout);
  }
});
