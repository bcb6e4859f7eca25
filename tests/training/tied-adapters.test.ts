import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ModelWeights, readTrainerState } from "#lib/checkpoint/index";
import { AdapterDirectory } from "#lib/checkpoint/peft/index";
import { createCaseJob } from "#tests/support/case-job";

// The real engine: what a run computes beside a tied head is what its adapter makes of the base model.

for (const ensure_weight_tying of [false, true]) {
  const name = ensure_weight_tying ? "one weight with" : "another weight than";
  test(`a trained embedding table is ${name} the head that was tied to it`, async (t) => {
    const job = await createCaseJob("23-train-local-keys", { isTied: true });
    t.after(job.remove);
    const [output, merged] = [job.file("out"), job.file("merged")];
    const lockstep = async (...args: string[]): Promise<readonly string[]> => {
      const { code, stderr, lines } = await job.lockstep(args);
      assert.equal(code, 0, stderr);
      return lines;
    };
    const eval_dataset = job.file("sums.jsonl");
    const lora = {
      ...{ use_peft: true, lora_modules_to_save: ["embed_tokens"], ensure_weight_tying },
      ...{ learning_rate: 3e-2, max_steps: 6, eval_dataset },
    };
    const lines = await lockstep("train-local", await job.writeJob(lora));
    const told = ensure_weight_tying ? /are trained as the one weight/ : /are two here, as in peft/;
    assert.match(lines.join("\n"), told);
    await lockstep("merge-adapter", output, merged);
    const still = { eval_dataset, learning_rate: 0, max_steps: 1, eval_on_start: true };
    const places = { model_name_or_path: merged, output_dir: job.file("again") };
    await lockstep("train-local", await job.writeJob({ ...still, ...places }));
    const losses = async (directory: string): Promise<unknown[]> =>
      (await readTrainerState(directory)).log_history.flatMap((entry) => entry["eval_loss"] ?? []);
    const [own] = (await losses(output)).slice(-1);
    const [first, last] = await losses(job.file("again"));
    assert.ok(
      Math.abs(Number(own) - Number(first)) < 1e-5,
      `${Number(own)} here, ${Number(first)} merged`,
    );
    assert.equal(first, last);

    const [base, whole] = [
      await ModelWeights.open(job.modelDirectory),
      await ModelWeights.open(merged),
    ];
    const config = JSON.parse(await readFile(join(merged, "config.json"), "utf8")) as object;
    assert.equal(
      "tie_word_embeddings" in config && config.tie_word_embeddings,
      ensure_weight_tying,
    );
    const table = "model.embed_tokens.weight";
    const before = await base.readFloat32(table);
    assert.notDeepEqual(await whole.readFloat32(table), before);
    assert.equal(whole.has("lm_head.weight"), !ensure_weight_tying);
    if (!ensure_weight_tying) assert.deepEqual(await whole.readFloat32("lm_head.weight"), before);
    const adapter = await AdapterDirectory.open(output);
    const saved = ensure_weight_tying ? ["lm_head.weight", table] : [table];
    assert.deepEqual(adapter.savedWeights, saved);
    for (const each of [base, whole, adapter]) await each.close();
  });
}
