import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readTrainerState } from "#lib/checkpoint/index";
import { type CaseJob, createCaseJob } from "#tests/support/case-job";
import { needsPeers, runPeers } from "#tests/support/peers";

// Adapters beside a head and an embedding table that are one weight, or two: the loss at the end of the run is
// the adapter's in peft, the merged model's in transformers and here. See adapter_losses.py.

interface Training {
  readonly name: string;
  readonly isTied: boolean;
  readonly settings: Readonly<Record<string, unknown>>;
  /** Whether the merged model's head is its table. */
  readonly staysTied: boolean;
  /** Whether it also goes through generate, and the merged model through an evaluation here. */
  readonly isFollowed?: boolean;
}

const targets = { lora_target_modules: ["q_proj", "v_proj"] };
const trainings: readonly Training[] = [
  ...[["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]].map((names) => ({
    name: `tied, ${names.join(" and ")}`,
    ...{ isTied: true, staysTied: false, isFollowed: names.length === 1 },
    settings: { ...targets, lora_modules_to_save: names },
  })),
  ...[["embed_tokens"], ["lm_head"]].map((names) => ({
    name: `tied, ${names.join()} kept tied`,
    ...{ isTied: true, staysTied: true },
    settings: { ...targets, lora_modules_to_save: names, ensure_weight_tying: true },
  })),
  {
    ...{ name: "tied, all linear modules", isTied: true, staysTied: true },
    settings: { lora_target_modules: "all-linear" },
  },
  {
    ...{ name: "untied, both and an ending", isTied: false, staysTied: false },
    settings: {
      lora_target_modules: ".*layers\\.1\\..*(q|up)_proj",
      lora_modules_to_save: ["embed_tokens", "lm_head", "norm"],
    },
  },
];

const jobs: CaseJob[] = [];
after(async () => {
  for (const job of jobs) await job.remove();
});

const prompt = "3 plus 3 is ";

/** @returns the loss of the run's last evaluation, and the manifest's case */
async function trained({ name, isTied, settings, isFollowed = false }: Training) {
  const job = await createCaseJob("23-train-local-keys", { isTied });
  jobs.push(job);
  const [output, merged] = [job.file("out"), job.file("merged")];
  const run = async (...args: string[]) => {
    const outcome = await job.lockstep(args);
    assert.equal(outcome.code, 0, `${name}: ${outcome.stderr}`);
    return outcome;
  };
  const rows = job.file("sums.jsonl");
  const lora = { use_peft: true, lora_r: 4, learning_rate: 3e-2, max_steps: 6, ...settings };
  await run("train-local", await job.writeJob({ ...lora, eval_dataset: rows }));
  await run("merge-adapter", output, merged);
  const { log_history: history } = await readTrainerState(output);
  const loss = history.findLast((entry) => "eval_loss" in entry)?.["eval_loss"];
  const manifest = { name, base: job.modelDirectory, adapter: output, merged, rows, prompt };
  const generated: number[][] = [];
  const outcome = { loss: Number(loss), mergedLoss: Number(loss), generated, manifest };
  if (!isFollowed) return outcome;
  for (const model of [output, merged]) {
    const asked = ["--prompt", prompt, "--temperature", "0", "--max-new-tokens", "6", "--json"];
    const { lines } = await run("generate", model, ...asked);
    generated.push((JSON.parse(lines.at(-1) ?? "") as { tokens: number[] }).tokens);
  }
  // The merged model's evaluation here, before a step that changes nothing.
  const still = { learning_rate: 0, max_steps: 1, eval_on_start: true, eval_dataset: rows };
  const again = await run(
    "train-local",
    await job.writeJob({ ...still, model_name_or_path: merged, output_dir: job.file("again") }),
  );
  const mergedLoss = Number(
    /validation loss ([\d.]+)/.exec(again.lines.join("\n"))?.[1] ?? Number.NaN,
  );
  return { ...outcome, mergedLoss };
}

const runs: Awaited<ReturnType<typeof trained>>[] = [];
before(async () => {
  if (needsPeers().skip !== undefined) return;
  for (const training of trainings) runs.push(await trained(training));
});

test(
  "the loss of a run is its adapter's in peft, and the merged model's",
  needsPeers(),
  async () => {
    const manifest = join(jobs[0]?.directory ?? "", "manifest.json");
    await writeFile(manifest, JSON.stringify(runs.map((run) => run.manifest)));
    const lines = (await runPeers("adapter_losses.py", [manifest])).trimEnd().split("\n");
    assert.equal(lines.length, trainings.length);
    const losses: number[] = [];
    for (const [index, { name, isTied, staysTied }] of trainings.entries()) {
      const theirs = JSON.parse(lines[index] ?? "") as {
        readonly base: number;
        readonly adapted: number;
        readonly merged: number;
        readonly tokens: number[];
        readonly isTied: boolean;
        readonly keys: Readonly<Record<string, number[]>>;
        readonly expected: Readonly<Record<string, number[]>>;
      };
      const run = runs[index];
      assert.ok(run !== undefined);
      const near = (value: number, tolerance: number, what: string): void =>
        assert.ok(
          Math.abs(value - run.loss) < tolerance,
          `${name}: ${what} ${value}, here ${run.loss}`,
        );
      near(theirs.adapted, 1e-5, "in peft");
      near(theirs.merged, 1e-5, "merged, in transformers");
      near(run.mergedLoss, 1e-4, "merged, here");
      assert.ok(theirs.base - run.loss > 0.1, `${name}: nothing is learnt (${theirs.base})`);
      for (const tokens of run.generated) assert.deepEqual(tokens, theirs.tokens, name);
      assert.equal(theirs.isTied, isTied && staysTied, name);
      // What is trained and saved is what peft trains and saves for this configuration.
      assert.deepEqual(theirs.keys, theirs.expected, name);
      losses.push(run.loss);
    }
    // Tied or not is another training.
    assert.ok(Math.abs((losses[0] ?? 0) - (losses[3] ?? 0)) > 1e-3);
  },
);

test("the saved configuration asks peft for the same tying", needsPeers(), async () => {
  for (const [index, { settings, staysTied }] of trainings.entries()) {
    const adapter = runs[index]?.manifest.adapter ?? "";
    const text = await readFile(join(adapter, "adapter_config.json"), "utf8");
    const saved = JSON.parse(text) as Record<string, unknown>;
    assert.equal(saved["ensure_weight_tying"], settings["ensure_weight_tying"] ?? undefined);
    const names = saved["modules_to_save"] as string[] | null;
    if (staysTied && names !== null) assert.ok(names.includes("model.embed_tokens"));
  }
});
