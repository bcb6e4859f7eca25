import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { runProgram } from "#tests/support/run-program";
import { createTinyClassifier, type TinyClassifier } from "#tests/support/tiny-classifier";

// An encoder without a head learns a number of each row, from a table to the number of a text.

const rows = Array.from({ length: 64 }, (_, i) => {
  const held = (i * 5 + 3) % 6;
  const [strong, weak] = [Array(held).fill("strong"), Array(5 - held).fill("people")];
  // The first is a fraction: it tells numbers to learn from classes.
  return { text: `the ${[...strong, ...weak].join(" ")} of ${i}`, score: held / 2 - 1 };
});
assert.equal(rows[0]?.score, 0.5);

let job: TinyClassifier;
before(async () => {
  const settings = {
    ...{ max_steps: 60, metric_for_best_model: "spearmanr", eval_strategy: "no" },
    columns: { label: "score" },
  };
  job = await createTinyClassifier("distilbert", { settings });
  await writeFile(
    join(job.directory, "rows.csv"),
    `text,score\n${rows.map(({ text, score }) => `${text},${score}\n`).join("")}`,
  );
});
after(() => job.remove());

const run = (command: "train" | "train-local", name: string, table: string, ...args: string[]) =>
  lockstepCommand(
    [
      ...[command, job.configFile, "--output-dir", join(job.directory, name)],
      ...["--dataset", join(job.directory, table)],
      ...["--global-batch-size", "8", "--gradient-groups", "2", ...args],
    ],
    join(job.directory, "cache"),
  );

test("one process and two workers end with the same regression, whose numbers classify shows", async () => {
  const none = ["--metric-for-best-model", "null"];
  const local = await run("train-local", "local", "rows.csv", ...none);
  assert.equal(local.code, 0, local.stderr);
  const said = local.lines.join("\n");
  const expected = /masters sha256 ([0-9a-f]{64})/.exec(said)?.[1];
  assert.match(said, /training: 51 examples with 1 number each/);
  const cluster = await run("train", "workers", "rows.csv", "--json-logs", "--workers", "2");
  assert.equal(cluster.code, 0, cluster.stderr);
  assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected);
  const { objective } = cluster.of("run.started")[0] ?? {};
  assert.deepEqual(
    objective?.metrics.map(({ label }) => label),
    ["RMSE", "MAE", "Pearson", "Spearman"],
  );
  const [before, trained] = cluster.of("evaluation.completed");
  assert.ok(before !== undefined && trained !== undefined);
  assert.ok(trained.loss < 0.3 * before.loss, `${before.loss} to ${trained.loss}`);
  const { rmse = 0, pearson = 0, spearmanr = 0 } = trained.metrics;
  assert.ok(Math.abs(rmse ** 2 / trained.loss - 1) < 1e-5, `${rmse} and ${trained.loss}`);
  assert.ok(pearson > 0.9 && spearmanr > 0.9, `${pearson}, ${spearmanr}`);
  assert.ok(said.includes(`Spearman ${spearmanr.toFixed(4)}`), said);

  const output = join(job.directory, "workers");
  const json = async (file: string): Promise<Record<string, unknown>> =>
    JSON.parse(await readFile(join(output, file), "utf8")) as Record<string, unknown>;
  const results = await json("eval_results.json");
  assert.deepEqual([results["eval_rmse"], results["eval_spearmanr"]], [rmse, spearmanr]);
  const config = await json("config.json");
  assert.deepEqual(
    [config["problem_type"], config["id2label"], config["label2id"]],
    ["regression", { 0: "LABEL_0" }, { LABEL_0: 0 }],
  );

  const texts = join(job.directory, "texts.txt");
  await writeFile(texts, rows.map(({ text }) => `${text}\n`).join(""));
  const classify = (...args: string[]) =>
    runProgram(process.execPath, [join(packageRoot, "bin/lockstep"), "classify", output, ...args]);
  const shown = await classify("--json", "--file", texts);
  assert.equal(shown.code, 0, shown.stderr);
  const numbers = shown.stdout
    .trim()
    .split("\n")
    .map((line) => {
      const { scores } = JSON.parse(line) as { scores: { label: string; score: number }[] };
      assert.deepEqual([scores.length, scores[0]?.label], [1, "LABEL_0"]);
      return scores[0]?.score ?? Number.NaN;
    });
  const squares = rows.map(({ score }, row) => ((numbers[row] ?? Number.NaN) - score) ** 2);
  const shownRmse = Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / rows.length);
  assert.ok(shownRmse < 0.5, `${shownRmse} between the labels and what classify shows`);
  const plain = await classify("--text", rows[0]?.text ?? "");
  assert.match(plain.stdout, /^> the strong .*\n {2}LABEL_0 {2}-?\d+\.\d+\n\n$/);
  const top = await classify("--text", "the", "--top", "1");
  assert.match(top.stderr, /E_USAGE.*--top is of classes, and the model is a regression/s);

  // A model that is a regression learns whole numbers too, by itself.
  const whole = rows.map(({ text }, i) => `${text},${i % 3}\n`).join("");
  await writeFile(join(job.directory, "whole.csv"), `text,score\n${whole}`);
  const again = await run(
    ...(["train-local", "again", "whole.csv", ...none] as const),
    ...["--max-steps", "2", "--model_name_or_path", output],
  );
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.lines.join("\n"), /with 1 number each/);
});

test("labels that are no numbers are refused by their row and what they are", async () => {
  const refused = async (labels: readonly string[], ...args: string[]): Promise<string> => {
    await writeFile(
      join(job.directory, "no.csv"),
      `text,score\n${labels.map((label) => `the,${label}\n`).join("")}`,
    );
    const none = ["--metric-for-best-model", "null"];
    const { code, stderr } = await run("train-local", "no", "no.csv", ...none, ...args);
    assert.notEqual(code, 0);
    return stderr;
  };
  for (const [labels, message] of [
    [["0.5", "NaN"], /E_DATA_ROW_FORMAT.*no\.csv:3.*"score" is no number but "NaN"/s],
    [["0.5", "1", "Infinity"], /E_DATA_ROW_FORMAT.*no\.csv:4.*is no number but "Infinity"/s],
    [["0.5", '"1,5"'], /E_DATA_ROW_FORMAT.*no\.csv:3.*"1,5"; a point stands before/s],
    [["0.5", "true"], /E_DATA_ROW_FORMAT.*no\.csv:3.*is no number but "true"/s],
    [["0.5", "good"], /E_DATA_ROW_FORMAT.*no\.csv:3.*single_label_classification classes/s],
    [["0.5", ""], /E_DATA_NO_ANSWER.*no\.csv:3.*no label/s],
    [["0.5", '"[1, 2]"'], /E_DATA_ROW_FORMAT.*no\.csv:3.*is a list as text/s],
    // Whole numbers first are classes: which of the two is meant has to be said.
    [["1", "0.5"], /E_LABELS_INVALID.*no\.csv:3.*no class.*objective: regression/s],
  ] as const) {
    assert.match(await refused([...labels, "2", "2"], "--validation-split", "0"), message);
  }
  const texts = ["--objective", "regression", "--dataset_format", "text", "--columns", "null"];
  assert.match(await refused(["1", "2"], ...texts), /E_CONFIG_CONFLICT.*objective and dataset/s);
});
