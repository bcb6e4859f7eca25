import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ModelWeights, readTrainerState } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";
import { type CommandOutcome, lockstepCommand } from "#tests/support/lockstep-command";
import { prepareTinyRun } from "#tests/support/tiny-run";

// What a run leaves behind, compared with a directory that transformers' Trainer wrote.

const theirs = (...parts: string[]): string =>
  join(packageRoot, "tests/fixtures/huggingface/out_full", ...parts);
let directory = "";

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lockstep-output-"));
  await prepareTinyRun(directory);
});

after(() => rm(directory, { recursive: true, force: true }));

const train = (name: string, ...args: string[]): Promise<CommandOutcome> =>
  lockstepCommand(
    [
      ...["train", join(directory, "job.yaml"), "--json-logs"],
      ...["--output_dir", join(directory, name), ...args],
    ],
    join(directory, "cache"),
  );

const readJson = async (file: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;

const kindOf = (entry: object): string =>
  ["train_loss", "eval_loss", "loss"].find((name) => name in entry) ?? "unknown";

test("state, history and results have the keys, the layout and the arithmetic of the Trainer", async () => {
  const output = join(directory, "counted");
  const outcome = await train("counted", "--include_num_input_tokens_seen", "true");
  assert.equal(outcome.code, 0, outcome.stderr);

  const state = await readTrainerState(output);
  const reference = await readTrainerState(theirs());
  for (const kind of ["loss", "eval_loss", "train_loss"]) {
    const keys = (history: readonly object[]): string[] =>
      Object.keys(history.find((entry) => kindOf(entry) === kind) ?? {}).sort();
    // The training loss beside that of validation is a figure of our own.
    const theirKeys = keys(state.log_history).filter(
      (key) => !/^eval_(train_loss|loss_gap)$/.test(key),
    );
    assert.deepEqual(theirKeys, keys(reference.log_history), kind);
  }
  assert.deepEqual(
    state.log_history.map((entry) => `${kindOf(entry)} ${entry.step}`),
    // The order of transformers: logged, then evaluated; the closing entry last.
    [2, 4, 6].flatMap((step) => [`loss ${step}`, `eval_loss ${step}`]).concat("train_loss 6"),
  );
  assert.deepEqual(
    Object.keys(state.stateful_callbacks["TrainerControl"] as object),
    Object.keys(reference.stateful_callbacks["TrainerControl"] as object),
  );

  const closing = state.log_history.at(-1) ?? { step: 0, epoch: 0 };
  const { train_runtime: seconds = 0, total_flos: flos } = closing;
  assert.ok(seconds !== null && seconds > 0);
  assert.equal(closing["train_steps_per_second"], rounded(6 / seconds, closing));
  // Every step is 2 rows of 16 tokens; without its embedding the tiny Llama has so many weights.
  assert.equal(state.num_input_tokens_seen, 6 * 2 * 16);
  assert.equal(flos, 6 * (await numComputedParameters(output)) * 6 * 2 * 16);
  assert.equal(state.total_flos, flos);
  const losses = outcome.of("step.completed").map(({ loss }) => loss);
  assert.equal(closing["train_loss"], losses.reduce((a, b) => a + b, 0) / 6);

  const evaluation = state.log_history.find((entry) => "eval_loss" in entry);
  const evalSeconds = evaluation?.["eval_runtime"] ?? 0;
  const [samples, batches] = ["samples", "steps"].map(
    (what) => (evaluation?.[`eval_${what}_per_second`] ?? 0) * (evalSeconds ?? 0),
  );
  // 5 rows in 3 batches: the one that fills the last one does not count.
  assert.equal(Math.round(samples ?? 0), 5);
  assert.equal(Math.round(batches ?? 0), 3);

  const text = await readFile(join(output, "train_results.json"), "utf8");
  const theirText = await readFile(theirs("train_results.json"), "utf8");
  const shape = (json: string): string => json.replace(/: .*$/gm, ":").replace(/,/g, "");
  assert.equal(shape(text.replace(/\n.*total_flos.*/, "")), shape(theirText));
  const all = await readJson(join(output, "all_results.json"));
  for (const name of Object.keys(await readJson(theirs("all_results.json"))))
    assert.ok(name in all);
  const evaluated = await readJson(join(output, "eval_results.json"));
  assert.equal(all["eval_loss"], evaluated["eval_loss"]);
  assert.equal(evaluated["perplexity"], Math.exp(evaluated["eval_loss"] as number));

  const lines = (await readFile(join(output, "trainer_log.jsonl"), "utf8")).trimEnd().split("\n");
  assert.equal(lines.length, 7);
  assert.match(
    lines[0] ?? "",
    /^\{"current_steps": 2, "total_steps": 6, "loss": [\d.]+, "lr": [\de.-]+, "epoch": [\d.]+, "percentage": 33.33, "elapsed_time": "0:00:0\d", "remaining_time": "0:00:0\d", "throughput": [\d.]+, "total_tokens": 64\}$/,
  );

  const plain = await train("plain");
  assert.equal(plain.code, 0, plain.stderr);
  const entries = (await readTrainerState(join(directory, "plain"))).log_history;
  assert.deepEqual(Object.keys(entries[0] ?? {}).sort(), [
    ...["epoch", "grad_norm", "learning_rate", "loss", "step"],
  ]);
});

test("the best checkpoint survives the rotation and is the finished model", async () => {
  // A rate that climbs out of the optimum: the first evaluation is the best.
  const outcome = await train(
    "best",
    ...["--load_best_model_at_end", "--save_total_limit", "2", "--learning_rate", "5"],
  );
  assert.equal(outcome.code, 0, outcome.stderr);
  const output = join(directory, "best");
  const losses = new Map(outcome.of("evaluation.completed").map(({ step, loss }) => [step, loss]));
  const best = [...losses].sort(([, a], [, b]) => a - b)[0]?.[0];
  const checkpoints = (await readdir(output)).filter((name) => name.startsWith("checkpoint-"));
  assert.deepEqual(checkpoints.sort(), [...new Set([`checkpoint-${best}`, "checkpoint-6"])].sort());
  for (const place of [output, join(output, "checkpoint-6")]) {
    const state = await readTrainerState(place);
    assert.equal(state.best_global_step, best);
    assert.equal(state.best_metric, losses.get(best ?? 0));
    assert.equal(state.best_model_checkpoint, join(output, `checkpoint-${best}`));
  }
  assert.deepEqual(
    await readFile(join(output, "model.safetensors")),
    await readFile(join(output, `checkpoint-${best}`, "model.safetensors")),
  );

  const single = await train("single", "--load_best_model_at_end", "--save_total_limit", "1");
  assert.equal(single.code, 0, single.stderr);
  const left = (await readdir(join(directory, "single"))).filter((n) => n.startsWith("checkpoint"));
  assert.equal(left.length, 1);

  const onlyBest = await train("only-best", "--save_strategy", "best");
  const events = onlyBest.of("checkpoint.saved").map(({ step }) => step);
  let lowest = Number.POSITIVE_INFINITY;
  const improved = onlyBest.of("evaluation.completed").filter(({ loss }) => {
    const isBetter = loss < lowest;
    lowest = Math.min(lowest, loss);
    return isBetter;
  });
  assert.deepEqual(events, [...improved.map(({ step }) => step), 6]);
});

test("a damaged checkpoint is refused by the name of its file; max_shard_size and save_dtype are kept", async () => {
  const first = await train(
    "damaged",
    ...["--max_shard_size", "20KB", "--save_dtype", "bfloat16", "--save_steps", "3"],
  );
  assert.equal(first.code, 0, first.stderr);
  const checkpoint = join(directory, "damaged", "checkpoint-3");
  const index = await readJson(join(checkpoint, "model.safetensors.index.json"));
  const shards = [...new Set(Object.values(index["weight_map"] as Record<string, string>))].sort();
  assert.ok(shards.length > 1);
  const resume = (): Promise<CommandOutcome> =>
    train("damaged", "--resume_from_checkpoint", checkpoint, "--save_strategy", "no");
  assert.equal((await resume()).code, 0);
  // A model that is stored in bfloat16 stays so with save_dtype auto.
  const again = await train(
    "narrow",
    ...["--model_name_or_path", checkpoint, "--save_dtype", "auto"],
    ...["--max_steps", "1"],
  );
  assert.equal(again.code, 0, again.stderr);
  const weights = await ModelWeights.open(join(directory, "narrow"));
  assert.equal(weights.dtype(), "bfloat16");
  await weights.close();
  const victim = join(checkpoint, shards[1] ?? "");
  const bytes = await readFile(victim);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  await writeFile(victim, bytes);
  const refused = await resume();
  assert.equal(refused.code, 1);
  assert.match(
    refused.stderr,
    new RegExp(`E_CHECKPOINT_DAMAGED.*${shards[1]} has a wrong checksum`),
  );
});

const rounded = (value: number, entry: object): number => {
  // The runtime itself is rounded to 4 digits, which moves a rate by as much.
  const found = (entry as Record<string, number>)["train_steps_per_second"] ?? 0;
  assert.ok(Math.abs(found - value) <= 1e-3 * value + 1e-3, `${found} for ${value}`);
  return found;
};

async function numComputedParameters(output: string): Promise<number> {
  const weights = await ModelWeights.open(output);
  const sizes = weights.names().map((name) => [name, weights.info(name).numElements] as const);
  await weights.close();
  return sizes.reduce(
    (sum, [name, n]) => (name === "model.embed_tokens.weight" ? sum : sum + n),
    0,
  );
}
