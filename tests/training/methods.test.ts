import assert from "node:assert/strict";
import { join } from "node:path";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { ModelWeights } from "#lib/checkpoint/index";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { assertSameBits } from "#tests/support/same-bits";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyClassifier } from "#tests/support/tiny-classifier";
import { createTinyJob } from "#tests/support/tiny-job";

const withoutEvaluations = { saveSteps: 2, ofTwo: ["--eval-strategy", "no"] } as const;

// Each way to choose parameters in the whole command, with the real engine in real processes: whoever computes,
// and from wherever it goes on, a run ends with the same bits.

const steps = { max_steps: 4, global_batch_size: 8, gradient_groups: 2 };
/** What a command prints. */
async function printed(job: { readonly directory: string }, ...args: string[]) {
  const outcome = await lockstepCommand(args, join(job.directory, "cache"));
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome.lines;
}

test("biases of BERT beside a new head: the same bits whoever computes, and nothing else moves", async (t) => {
  const settings = { ...steps, finetuning_type: "bitfit", learning_rate: 1e-2 };
  const job = await createTinyClassifier("bert", { settings });
  t.after(job.remove);
  const { lines } = (await assertSameBits(job, withoutEvaluations)).local;
  assert.match(lines.join("\n"), /biases and the new head: [\d,]+ of [\d,]+ parameters/);

  const [base, saved] = await Promise.all(
    ["model", "two"].map((name) => ModelWeights.open(join(job.directory, name))),
  );
  for (const name of base?.names() ?? []) {
    const before = await base?.readFloat32(name);
    // The hub's encoders have no prefix.
    const after = await saved?.readFloat32(`bert.${name}`);
    const stays = after?.every((value, i) => Object.is(value, before?.[i]));
    assert.equal(stays, !name.endsWith(".bias"), name);
  }
  await base?.close();
  await saved?.close();
});

test("virtual tokens before a Llama: the same bits whoever computes, and the directory continues texts", async (t) => {
  const job = await createTinyJob({
    ...{ ...steps, finetuning_type: "prompt", learning_rate: 0.1, num_virtual_tokens: 3 },
    ...{ prompt_tuning_init: "TEXT", prompt_tuning_init_text: "the law of peace" },
  });
  t.after(job.remove);
  const lines = (await assertSameBits(job, withoutEvaluations)).local.lines.join("\n");
  assert.match(lines, /3 virtual tokens: [\d,]+ of [\d,]+ parameters are trained/);
  const losses = [...lines.matchAll(/validation loss (\d+\.\d+)/g)].map(([, loss]) => Number(loss));
  assert.ok((losses.at(-1) ?? 0) < (losses[0] ?? 0), `the validation loss falls: ${losses.join()}`);
  // The sample that the run printed last is the directory's own continuation.
  const ask = ["--prompt", "the state", "--max-new-tokens", "4"];
  const answer = (await printed(job, "generate", join(job.directory, "local"), ...ask)).join("\n");
  assert.ok(answer.trim() !== "" && lines.includes(answer.trim()), `${answer} is not in ${lines}`);
});

for (const [finetuning_type, keys] of [
  ["prompt", { num_virtual_tokens: 3 }],
  ["adapter", { reduction_factor: 4 }],
] as const) {
  test(`BERT with finetuning_type ${finetuning_type}: classify gives the run's own accuracy`, async (t) => {
    const settings = { ...steps, ...keys, finetuning_type, max_length: 48 };
    const job = await createTinyClassifier("bert", { settings });
    t.after(job.remove);
    const rows = join(job.directory, "rows.jsonl");
    const log = await runJob(job, "train-local", "out", ["--eval_dataset", rows]);
    mastersOf(log);
    const asked = ["classify", join(job.directory, "out"), "--file", rows, "--json", "--top", "1"];
    const answers = await printed(job, ...asked);
    const right = (await readFile(rows, "utf8"))
      .trim()
      .split("\n")
      .filter((row, i) => {
        const [best] = (JSON.parse(answers[i] ?? "") as { scores: { label: string }[] }).scores;
        return best?.label === (JSON.parse(row) as { label: string }).label;
      });
    const accuracy = `accuracy ${(right.length / answers.length).toFixed(4)}`;
    assert.ok(
      log.lines.join("\n").includes(accuracy),
      `${accuracy}: ${log.lines.slice(-4).join()}`,
    );
  });
}

test("adapters in a Llama: the same bits whoever computes, and the directory continues texts", async (t) => {
  const job = await createTinyJob({
    ...{ ...steps, finetuning_type: "adapter", learning_rate: 0.01 },
    ...{ adapter_config: "double_seq_bn", reduction_factor: 4, gradient_checkpointing: true },
  });
  t.after(job.remove);
  const lines = (await assertSameBits(job, withoutEvaluations)).local.lines.join("\n");
  assert.match(lines, /\d adapters of width \d+: [\d,]+ of [\d,]+ parameters are trained/);
  const ask = ["--prompt", "the state", "--max-new-tokens", "4"];
  const answer = (await printed(job, "generate", join(job.directory, "local"), ...ask)).join("\n");
  assert.ok(answer.trim() !== "" && lines.includes(answer.trim()), `${answer} is not in ${lines}`);
});
