import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createPairJob } from "#tests/support/pair-job";
import { needsPeers, runPeers } from "#tests/support/peers";

// What a reward model says of a text, transformers says too. See reward_scores.py.

test(
  "a saved reward model gives texts the rewards that it has in transformers",
  needsPeers(),
  async (t) => {
    const job = await createPairJob({
      ...{ objective: "reward", max_steps: 3, learning_rate: 1e-2, save_dtype: "float32" },
    });
    t.after(job.remove);
    mastersOf(await runJob(job, "train-local", "reward"));
    const directory = join(job.directory, "reward");
    const texts = ["the state of union is strong", "peace", "law and people and peace and law"];
    const { code, stderr, lines } = await lockstepCommand(
      ["classify", directory, "--json", ...texts.flatMap((text) => ["--text", text])],
      join(job.directory, "cache"),
    );
    assert.equal(code, 0, stderr);
    const own = lines.map((line) => {
      const { scores } = JSON.parse(line) as { scores: { label: string; score: number }[] };
      assert.deepEqual(
        scores.map(({ label }) => label),
        ["LABEL_0"],
      );
      return scores[0]?.score ?? Number.NaN;
    });
    const theirs = JSON.parse(
      await runPeers("reward_scores.py", [directory, ...texts]),
    ) as number[];
    assert.equal(new Set(theirs).size, texts.length);
    for (const [i, reward] of theirs.entries()) {
      assert.ok(Math.abs((own[i] ?? Number.NaN) - reward) < 1e-5, `${own[i]} for ${reward}`);
    }
  },
);
