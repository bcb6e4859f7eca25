import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { loadConfig } from "#lib/config/index";
import { packageRoot } from "#lib/core/paths";
import { blocksOf, commandsOf, type PageCommand, pages, wordsOf } from "#tests/support/page-blocks";
import {
  createPageCheckout,
  examples,
  madeSmall,
  type PageCheckout,
  small,
  trainExample,
  withoutTensorFlow,
} from "#tests/support/page-checkout";

// What the pages tell a person to type is typed. A block that no table here knows fails by its place.

let checkout: PageCheckout;
const path = (...parts: string[]): string => checkout.path(...parts);

before(async () => {
  checkout = await createPageCheckout();
  // Results that pages begin with.
  await trainExample(checkout, "quickstart.yaml", withoutTensorFlow);
  await trainExample(checkout, "lora.yaml", withoutTensorFlow);
  await trainExample(checkout, "classifier.yaml");
});

after(() => checkout.remove());

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
  [/^README\.md$/, /^$/, "tests/cli/examples.test.ts"],
];

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
  // As it stands it is that of examples.test.ts.
  const isExample = examples.some((name) => rest.join(" ") === `examples/${name}`);
  if (command === "train" && isExample) return;
  if (command === "submit") args.push(...asSettings({ ...small, ...withoutTensorFlow }));
  const isTraining = command === "train" || command === "train-local";
  const typed = isTraining ? madeSmall(args, withoutTensorFlow) : args;
  const [code, output] = await checkout.run([command, ...typed]).ended;
  assert.equal(code, 0, `${place}: ${text}\n${output}`);
  if (command === "submit") jobId = /^[a-z0-9]{8}\b/m.exec(output)?.[0] ?? "";
}

/** Of the job that was submitted last. */
let jobId = "";

const asSettings = (settings: Readonly<Record<string, string>>): string[] =>
  Object.entries(settings).map(([key, value]) => `--set=${key}=${value}`);

async function hosted(place: string, args: readonly string[]): Promise<void> {
  const coordinator = checkout.run([
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
  const worker = checkout.run([
    ...["worker", "--coordinator", await address],
    ...["--engine-module", withoutTensorFlow.engine_module],
  ]);
  for (const { ended } of [worker, coordinator]) {
    const [code, output] = await ended;
    assert.equal(code, 0, `${place}: ${output}`);
  }
}

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
