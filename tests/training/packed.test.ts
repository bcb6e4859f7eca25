import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lockstepCommand } from "#tests/support/lockstep-command";
import { createTinyJob, type TinyJob } from "#tests/support/tiny-job";

// Prompts and completions of ragged lengths, packed into shared rows, with the real engine.

let job: TinyJob;
before(async () => {
  job = await createTinyJob({
    max_steps: 4,
    packing: true,
    max_length: 32,
    validation_split: 0.2,
    eval_dataset: null,
  });
  const words = ["the", "state", "of", "union", "is", "strong", "and", "peace", "law", "people"];
  const phrase = (seed: number, length: number): string =>
    Array.from({ length }, (_, i) => words[(seed * 3 + i * 7) % words.length]).join(" ");
  const rows = Array.from({ length: 120 }, (_, i) =>
    JSON.stringify({
      prompt: phrase(i, 1 + (i % 4)),
      completion: ` ${phrase(i + 5, 1 + (i % 6))}`,
    }),
  );
  await writeFile(join(job.directory, "rows.jsonl"), `${rows.join("\n")}\n`);
});
after(() => job.remove());

test("packed rows: one process, one and two workers end with the same weights", async () => {
  const run = (command: "train" | "train-local", name: string, args: readonly string[]) =>
    lockstepCommand(
      [
        ...[command, job.configFile, "--output-dir", join(job.directory, name)],
        ...["--dataset", join(job.directory, "rows.jsonl")],
        ...["--global-batch-size", "8", "--gradient-groups", "2", ...args],
      ],
      join(job.directory, "cache"),
    );
  const local = await run("train-local", "local", []);
  assert.equal(local.code, 0, local.stderr);
  const expected = /masters sha256 ([0-9a-f]{64})/.exec(local.lines.join("\n"))?.[1];
  assert.ok(expected !== undefined, local.lines.join("\n"));
  for (const numWorkers of [1, 2]) {
    const args = ["--json-logs", "--workers", String(numWorkers)];
    const cluster = await run("train", `workers-${numWorkers}`, args);
    assert.equal(cluster.code, 0, cluster.stderr);
    assert.equal(cluster.of("run.completed")[0]?.mastersSha256, expected);
    assert.ok((cluster.of("evaluation.completed")[0]?.weight ?? 0) > 0);
  }
  const weightsMoved = await run("train", "other-rows", ["--json-logs", "--no-packing"]);
  assert.notEqual(weightsMoved.of("run.completed")[0]?.mastersSha256, expected);
});
