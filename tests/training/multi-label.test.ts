import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { runProgram } from "#tests/support/run-program";
import { createTinyClassifier, type TinyClassifier } from "#tests/support/tiny-classifier";

// An encoder without a head learns several labels a row, from a file of rows to the classes of a text.

const words = ["strong", "state", "union"];
const names = words.map((word) => `about ${word}`);
const rows = Array.from({ length: 64 }, (_, i) => {
  const held = words.filter((_word, label) => ((i * 5 + 3) >> label) % 2 === 1);
  const text = `the ${held.map((word) => `${word} ${word} ${word}`).join(" and ")} of ${i}`;
  return { text, held };
});

let job: TinyClassifier;
before(async () => {
  const settings = {
    ...{ max_steps: 40, metric_for_best_model: "exact_match", eval_strategy: "no" },
    // So few steps learn too little of values that are dropped.
    dropout: 0,
  };
  job = await createTinyClassifier("distilbert", { settings });
  const lines = rows.map(({ text, held }) =>
    JSON.stringify({ text, label: held.map((word) => `about ${word}`) }),
  );
  await writeFile(join(job.directory, "rows.jsonl"), `${lines.join("\n")}\n`);
});
after(() => job.remove());

const run = (command: "train" | "train-local", name: string, ...args: string[]) =>
  lockstepCommand(
    [
      ...[command, job.configFile, "--output-dir", join(job.directory, name)],
      ...["--global-batch-size", "8", "--gradient-groups", "2", ...args],
    ],
    join(job.directory, "cache"),
  );

test("one process and two workers end with the same classifier, which classify and a file show", async () => {
  const local = await run("train-local", "local", "--metric-for-best-model", "null");
  assert.equal(local.code, 0, local.stderr);
  const expected = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
  const cluster = await run("train", "workers", "--json-logs", "--workers", "2");
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected);
  const { objective } = cluster.of("run.started")[0] ?? {};
  assert.deepEqual(
    objective?.metrics.map(({ label }) => label),
    ["micro-F1", "macro-F1", "exact match"],
  );
  const [before, trained] = cluster.of("evaluation.completed");
  assert.ok(before !== undefined && trained !== undefined);
  assert.ok(trained.loss < 0.7 * before.loss, `${before.loss} to ${trained.loss}`);
  const { micro_f1: microF1 = 0, exact_match: exactMatch = 0 } = trained.metrics;
  assert.ok(microF1 > 0.8 && exactMatch > (before.metrics["exact_match"] ?? 1), `${microF1}`);
  const said = local.lines.join("\n");
  assert.ok(said.includes(`micro-F1 ${microF1.toFixed(4)}`), said);

  const output = join(job.directory, "workers");
  const json = async (file: string): Promise<Record<string, unknown>> =>
    JSON.parse(await readFile(join(output, file), "utf8")) as Record<string, unknown>;
  const results = await json("eval_results.json");
  assert.deepEqual([results["eval_micro_f1"], results["eval_exact_match"]], [microF1, exactMatch]);
  const config = await json("config.json");
  assert.equal(config["problem_type"], "multi_label_classification");
  const byName = [...names].sort();
  assert.deepEqual(config["id2label"], Object.fromEntries(byName.entries()));

  // What the command shows of the rows is right as often as the evaluation of some of them was.
  const texts = join(job.directory, "texts.txt");
  await writeFile(texts, rows.map(({ text }) => `${text}\n`).join(""));
  const shown = await runProgram(process.execPath, [
    ...[join(packageRoot, "bin/lockstep"), "classify", output, "--json", "--file", texts],
  ]);
  assert.equal(shown.code, 0, shown.stderr);
  let numHeld = 0;
  let numShown = 0;
  let numRight = 0;
  for (const [row, line] of shown.stdout.trim().split("\n").entries()) {
    const { scores } = JSON.parse(line) as { scores: { label: string; score: number }[] };
    assert.deepEqual(scores.map(({ label }) => label).sort(), byName);
    const held = (rows[row] as (typeof rows)[number]).held.map((word) => `about ${word}`);
    const labels = scores.filter(({ score }) => score > 0.5).map(({ label }) => label);
    numHeld += held.length;
    numShown += labels.length;
    numRight += labels.filter((label) => held.includes(label)).length;
  }
  const shownF1 = (2 * numRight) / (numHeld + numShown);
  assert.ok(shownF1 > 0.8, `micro-F1 ${shownF1} of what classify shows`);

  // A model that has classes takes them, and 0 or 1 for each of them is the same rows.
  const vectors = rows.map(({ text, held: own }) =>
    JSON.stringify({ text, label: byName.map((name) => own.some((word) => name.endsWith(word))) }),
  );
  await writeFile(join(job.directory, "vectors.jsonl"), `${vectors.join("\n")}\n`);
  const more = ["--model_name_or_path", output, "--metric-for-best-model", "null"];
  const again = await run("train-local", "again", ...more);
  const ofVectors = await run(
    ...(["train-local", "vectors", ...more] as const),
    ...["--dataset", join(job.directory, "vectors.jsonl")],
  );
  const shaOf = ({ code, stderr, lines }: typeof again): string | undefined => {
    assert.equal(code, 0, stderr);
    return /masters sha256 ([0-9a-f]{64})/.exec(lines.join("\n"))?.[1];
  };
  assert.equal(shaOf(ofVectors), shaOf(again));
});

test("what does not fit is refused by name", async () => {
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await run("train-local", "no", ...args);
    assert.notEqual(code, 0);
    return stderr;
  };
  const table = join(job.directory, "table.csv");
  await writeFile(table, "text,label\nthe,a\nof,b\n");
  const asked = ["--objective", "multi_label_classification", "--metric-for-best-model", "null"];
  assert.match(await refused(...asked, "--dataset", table), /E_DATA_ROW_FORMAT.*is no list/s);
  const single = ["--objective", "single_label_classification"];
  const none = ["--metric-for-best-model", "null"];
  assert.match(await refused(...single, ...none), /E_DATA_ROW_FORMAT.*neither text nor a number/s);
  const texts = ["--dataset_format", "text"];
  assert.match(await refused(...asked, ...texts), /E_CONFIG_CONFLICT.*objective and dataset/s);
  assert.match(
    await refused("--objective", "causal_lm", ...none),
    /E_CONFIG_CONFLICT.*reads no label/s,
  );
});
