import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { peersPython } from "#bench/frame/peers-python";
import { packageRoot } from "#lib/core/paths";
import { loadTokenizer } from "#lib/data/index";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { needsPeers, runPeers } from "#tests/support/peers";
import { runProgram } from "#tests/support/run-program";
import { createTinyClassifier } from "#tests/support/tiny-classifier";
import { createTinyJob } from "#tests/support/tiny-job";

// What a run prints at its end is typed into Python, and gives there what bin/lockstep gives here.

interface Trained {
  readonly name: string;
  readonly directory: string;
  readonly output: string;
  /** As the run printed them. */
  readonly lines: readonly string[];
}

const prompts = ["the state of union", "peace law", "people and the strong"];
const numNew = 6;
const texts = [
  ["the state of peace peace", "law of that"],
  ["union law law law", "people"],
];

let scratch = "";
const trained: Trained[] = [];
const removals: (() => Promise<void>)[] = [];

before(async () => {
  if (needsPeers().skip !== undefined) return;
  scratch = await mkdtemp(join(tmpdir(), "lockstep-lines-"));
  const lora = { use_peft: true, lora_r: 4, learning_rate: 1e-2 };
  const fast = { workers: 1, max_steps: 4, bf16: false };
  const jobs = [
    ["causal", await createTinyJob(fast)],
    ["lora", await createTinyJob({ ...fast, ...lora })],
    ["classifier", await createTinyClassifier("bert", { pairs: true, settings: fast })],
    [
      "lora classifier",
      await createTinyClassifier("bert", { pairs: true, settings: { ...fast, ...lora } }),
    ],
  ] as const;
  for (const [name, job] of jobs) {
    removals.push(job.remove);
    const outcome = await lockstepCommand(["train", job.configFile], join(scratch, "cache"));
    assert.equal(outcome.code, 0, outcome.stderr);
    const at = outcome.lines.indexOf("Load it in Python:");
    assert.ok(at > 0, outcome.lines.join("\n"));
    const lines = outcome.lines.slice(at + 1).filter((line) => line !== "");
    const { directory } = job;
    trained.push({ name, directory, output: join(directory, "out"), lines });
  }
});
after(async () => {
  for (const remove of removals) await remove();
  if (scratch !== "") await rm(scratch, { recursive: true, force: true });
});

async function inPython(cases: readonly object[]): Promise<Record<string, unknown>[]> {
  const manifest = join(scratch, "manifest.json");
  await writeFile(manifest, JSON.stringify(cases));
  const out = await runPeers("run_python_lines.py", [manifest]);
  return out
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

const json = async (args: readonly string[]): Promise<unknown[]> => {
  const { code, stderr, lines } = await lockstepCommand(args, join(scratch, "cache"));
  assert.equal(code, 0, stderr);
  return lines.map((line) => JSON.parse(line) as unknown);
};

test("the printed lines load models, adapters and classifiers", needsPeers(), async () => {
  const results = await inPython(
    trained.map(({ name, directory, lines }) => ({
      ...{ name, directory, lines },
      ...(name.endsWith("classifier") ? { texts } : { prompts, new: numNew }),
    })),
  );
  assert.deepEqual(
    results.map(({ name }) => name),
    trained.map(({ name }) => name),
  );
  for (const [index, { name, output }] of trained.entries()) {
    const theirs = results[index];
    if (!name.endsWith("classifier")) {
      const args = ["generate", output, ...prompts.flatMap((prompt) => ["--prompt", prompt])];
      const asked = ["--temperature", "0", "--max-new-tokens", String(numNew), "--json"];
      const ours = (await json([...args, ...asked])) as { tokens: number[] }[];
      assert.deepEqual(
        ours.map(({ tokens }) => tokens),
        theirs?.["tokens"],
        name,
      );
      assert.ok(
        ours.some(({ tokens }) => tokens.length > 2),
        "nothing is compared",
      );
      continue;
    }
    const pairs = texts.flatMap(([a = "", b = ""]) => ["--text", a, "--text-pair", b]);
    const ours = (await json(["classify", output, ...pairs, "--json"])) as {
      scores: { label: string; score: number }[];
    }[];
    const expected = theirs?.["scores"] as Record<string, number>[];
    assert.equal(ours.length, texts.length);
    for (const [row, { scores }] of ours.entries()) {
      assert.equal(scores.length, 3);
      for (const { label, score } of scores) {
        const difference = Math.abs(score - (expected[row]?.[label] ?? Number.NaN));
        assert.ok(difference < 1e-5, `${name}, row ${row}, ${label}: ${difference}`);
      }
    }
  }
});

test("the printed command turns a slow tokenizer into a tokenizer.json", needsPeers(), async () => {
  // GPT-2's files, made of a byte-level tokenizer.json.
  const tok = join(packageRoot, "tests/fixtures/tok");
  const { model } = JSON.parse(await readFile(join(tok, "tokenizer.json"), "utf8")) as {
    model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
  };
  const place = join(scratch, "slow tokenizer");
  await mkdir(place);
  const merges = model.merges.map((pair) => (typeof pair === "string" ? pair : pair.join(" ")));
  await writeFile(join(place, "vocab.json"), JSON.stringify(model.vocab));
  await writeFile(join(place, "merges.txt"), ["#version: 0.2", ...merges, ""].join("\n"));
  await writeFile(join(place, "config.json"), '{"model_type":"gpt2"}');
  const message = await loadTokenizer(place).then(
    () => "",
    (error: unknown) => String(error),
  );
  const command = /(?<=: )python3 (-c ".*")\.?$/.exec(message)?.[1] ?? "";
  assert.notEqual(command, "", message);
  const typed = `HF_HUB_OFFLINE=1 '${peersPython()}' ${command}`;
  const { code, stderr } = await runProgram("sh", ["-c", typed]);
  assert.equal(code, 0, stderr);
  const [made, expected] = [await loadTokenizer(place), await loadTokenizer(tok)];
  const text = "the quick brown fox, hello hello";
  assert.deepEqual(await made.encode(text), await expected.encode(text));
});
